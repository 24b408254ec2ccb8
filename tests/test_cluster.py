"""The simulation on a Ray cluster that runs already: two nodes of one CPU each, as if on two other machines."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, run_sim
from test_sim import expect_one_line, hashes, rows

from server import code_zip, parcel
from server.cluster import SETTINGS, Cluster
from server.machine import Machine, workers_on_cluster
from server.parcel import Parcel, labelled
from task.errors import UserError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a path that other processes cannot open needs /proc")
# A path that leads elsewhere in each process: what the command finds below it is not there for a worker.
HERE = Path("/proc/self/cwd")
MODEL = """
import keras

from widths import hidden


def build(input_shape, num_classes):
    layers = [keras.layers.Flatten(), keras.layers.Dense(hidden(), activation="relu"), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])
"""


class Node:
    """A node of a Ray cluster, with all of its processes.

    Args:
        log: where it says that it runs.
        options: of `ray start`.
        environment: beside this process's.
    """

    def __init__(self, log: Path, *options: str, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short path
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--num-cpus=1", *options]
        command += [f"--temp-dir={self.folder}", "--object-store-memory=100000000", "--dashboard-agent-listen-port=0"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(log.read_text())
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """All that live of it."""
        try:
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Processes that run clients."""
        found = []
        for process in self.processes():
            try:
                if "ray::Worker" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self) -> None:
        """As if the machine lost power. Again: no effect."""
        ours = self.processes()
        for process in ours:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)
        psutil.wait_procs(ours, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


class Pair:
    """A cluster of two nodes whose workers keep what is sent to them in caches of their own."""

    def __init__(self, folder: Path) -> None:
        ports = [socket.socket() for _ in range(2)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        head, client = (port.getsockname()[1] for port in ports)
        for port in ports:
            port.close()
        self.address = f"127.0.0.1:{head}"
        self.caches = [folder / "cache-0", folder / "cache-1"]
        # A dead node is missed after a second instead of half a minute.
        quick = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "2"}
        options = ["--head", f"--port={head}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
        settings = f"--system-config={json.dumps(SETTINGS)}"
        self.nodes = [Node(folder / "0.log", *options, settings, FEDARENA_CACHE=str(self.caches[0]), **quick)]
        try:
            self.nodes.append(
                Node(folder / "1.log", f"--address={self.address}", FEDARENA_CACHE=str(self.caches[1]), **quick)
            )
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Kill both."""
        for node in reversed(self.nodes):
            node.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that commands are run in, with a user's own model."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "own.py").write_text(MODEL)
    (folder / "widths.py").write_text("def hidden():\n    return 16\n")
    return folder


@pytest.fixture(scope="module")
def options(small_data: Path) -> list[str]:
    some = ["--dataset", str(small_data), "--clients", "4", "--batch-size", "8", "--rounds", "12"]
    return [*some, "--model", "own:build", "--strategies", "fedavg", "fedmedian"]


@pytest.fixture(scope="module")
def plain(place: Path, options: list[str]) -> dict[str, str]:
    """The hashes of a run without a cluster."""
    done = run_sim(*options, "--out", "plain", cwd=place, FEDARENA_CACHE=str(HERE / "cache"))
    assert done.returncode == 0, done.stderr
    return hashes(place / "plain")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    cluster = Pair(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster
    finally:
        cluster.end()


def start(pair: Pair, place: Path, out: str, *options: str) -> subprocess.Popen[str]:
    """`python sim.py` on the cluster, on shards that its workers cannot open."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sim.py"), *options, "--out", out, "--ray-address", pair.address],
        cwd=place,
        env={**os.environ, "FEDARENA_CACHE": str(HERE / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(true, process: subprocess.Popen[str] | None = None, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def reached(folder: Path, server_round: int) -> bool:
    file = folder / "rounds.csv"
    return file.exists() and any(int(row["round"]) >= server_round for row in rows(folder, "rounds.csv"))


@LINUX
def test_the_same_bits_on_two_machines_without_the_shards(pair, place, options, plain):
    process = start(pair, place, "far", *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err + (place / "far" / "run.log").read_text()[-3000:]
    assert hashes(place / "far") == plain
    assert {row["status"] for row in rows(place / "far", "clients.csv")} == {"ok"}
    sent = [sorted((cache / parcel.SHIPPED).glob("*/shard-?.npz")) for cache in pair.caches]
    assert all(sent), "each machine had a worker, which had no shards"
    originals = {path.name: path.read_bytes() for path in (place / "cache").glob("shards/*/shard-?.npz")}
    for path in sent[0] + sent[1]:
        assert path.read_bytes() == originals[path.name]
        assert path.stat().st_mode & 0o077 == 0  # as private as the original
    until(lambda: not any(node.workers() for node in pair.nodes))
    assert all(node.process.poll() is None for node in pair.nodes)  # the cluster is not ours to end


@LINUX
def test_ctrl_c_leaves_the_cluster_and_takes_the_workers_along(pair, place, options):
    process = start(pair, place, "stopped", *options, "--rounds", "5000")
    until(lambda: reached(place / "stopped", 2), process)
    assert all(len(node.workers()) == 1 for node in pair.nodes)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    until(lambda: not any(node.workers() for node in pair.nodes))
    assert all(node.process.poll() is None for node in pair.nodes)


def test_more_workers_than_the_cluster_has_cpus_are_refused(pair, place, options):
    done = run_sim(*options, "--out", "refused", "--workers", "3", "--ray-address", pair.address, cwd=place)
    expect_one_line(done, "--workers 3 is more than the 2 CPUs")
    assert not (place / "refused").exists()


@LINUX
def test_a_machine_that_dies_loses_nobody(pair, place, options, plain):  # the last one: only one node is left
    process = start(pair, place, "lost", *options)
    until(lambda: reached(place / "lost", 1), process)
    pair.nodes[1].kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err + (place / "lost" / "run.log").read_text()[-3000:]
    assert hashes(place / "lost") == plain
    assert {row["status"] for row in rows(place / "lost", "clients.csv")} == {"ok"}
    assert "a worker died with a message of client" in out


# Addresses ----------------------------------------------------------------------------------------------------------


def test_nobody_at_the_address_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_sim("--dataset", "digits", "--out", tmp_path / "out", "--ray-address", address)
    expect_one_line(done, f"--ray-address {address}: nobody answers there")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", ":6379", "host:port", ""])
def test_an_address_of_another_kind_is_refused(address, tmp_path):
    expect_one_line(run_sim("--out", tmp_path / "out", "--ray-address", address), "auto or HOST:PORT")


def test_what_ray_complains_of_is_told_in_one_line(monkeypatch):
    complaint = "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.12.1\nThis process ..."

    def refuse(**_):
        raise RuntimeError(complaint)

    monkeypatch.setattr("ray.init", refuse)
    cluster = Cluster(Machine(ray_address="auto"), "mlp", print)
    try:
        with pytest.raises(UserError, match=r"--ray-address auto.* Ray: 2\.40\.0 Python: 3\.12\.1") as raised:
            cluster.workers()
    finally:
        cluster.stop()
    assert "\n" not in str(raised.value)


def test_workers_on_a_cluster():
    gib = 2**30
    assert workers_on_cluster(None, {"CPU": 64.0, "memory": 500.0 * gib}) == 64
    assert workers_on_cluster(None, {"CPU": 64.0, "memory": 9.0 * gib}) == 10
    assert workers_on_cluster(3, {"CPU": 64.0, "memory": 1.0 * gib}) == 3
    with pytest.raises(UserError, match="--workers 65 is more than the 64 CPUs"):
        workers_on_cluster(65, {"CPU": 64.0})
    with pytest.raises(UserError, match="no CPU"):
        workers_on_cluster(None, {"memory": 9.0})


# What goes along ----------------------------------------------------------------------------------------------------


def test_a_file_of_the_same_name_with_other_content_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "shard-3.npz"
    file.write_bytes(b"mine")
    label = labelled(file)
    full = label.filled()
    file.write_bytes(b"of another")
    assert label.file() is None
    kept = full.file()
    assert kept is not None
    assert (kept.name, kept.read_bytes()) == ("shard-3.npz", b"mine")
    assert label.file() == kept  # once sent, it is there
    monkeypatch.setattr(parcel, "_found", {})  # another process on that machine
    assert label.file() == kept


def test_a_file_that_is_there_is_used_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "shard-0.npz"
    file.write_bytes(b"shared")
    assert labelled(file).file() == file
    assert not (tmp_path / "cache" / parcel.SHIPPED).exists()
    assert Parcel(tmp_path / "nowhere").file() == tmp_path / "nowhere"  # without a hash nothing is looked at


def test_the_zip_holds_code_only(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    (place / "private.npz").write_bytes(b"data")
    (place / "task.py").write_text("raise SystemExit\n")  # a name of the project's
    package = place / "more" / "inner"
    package.mkdir(parents=True)
    (place / "more" / "__init__.py").write_text("")
    (package / "deep.py").write_text("")
    (place / "venv").mkdir()
    (place / "venv" / "foreign.py").write_text("")
    code_zip.pack("own:build", tmp_path / "a.zip")
    names = set(zipfile.ZipFile(tmp_path / "a.zip").namelist())
    own = {"own.py", "widths.py", "more/__init__.py", "more/inner/deep.py"}
    assert {name for name in names if name.split("/")[0] not in code_zip.PACKAGES} == own
    assert {"client/app.py", "server/workers.py", "strategies/base.py", "task/wire.py"} <= names
    assert {Path(name).suffix for name in names} == {".py"}
    code_zip.pack("own:build", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    code_zip.pack("more.inner.deep:build", tmp_path / "c.zip")
    assert set(zipfile.ZipFile(tmp_path / "c.zip").namelist()) == names


@pytest.mark.parametrize("model", ["mlp", "keras.applications:MobileNet", "nowhere_to_be_found:build", "json:loads"])
def test_no_own_code_for_what_is_installed(model, tmp_path):
    code_zip.pack(model, tmp_path / "code.zip")
    with zipfile.ZipFile(tmp_path / "code.zip") as held:
        assert {name.split("/")[0] for name in held.namelist()} == set(code_zip.PACKAGES)


def test_the_settings_told_are_those_that_we_use():
    told = (ROOT / "docs" / "scaling.md").read_text()
    assert f"--system-config='{json.dumps(SETTINGS)}'" in told


# The pool -----------------------------------------------------------------------------------------------------------


def pool(**machine) -> Any:
    from client.app import app
    from server.workers import WorkerPool

    return WorkerPool(Machine(**machine), app, lambda file, config: None, Path("shard-0.npz"), {}, print)


@pytest.mark.parametrize("name", ["numpy", "tensorflow", "the project's code"])
def test_a_worker_with_other_versions_or_other_code_is_refused(name, monkeypatch):
    from server.workers import _identity

    far = pool(ray_address="auto")
    monkeypatch.setattr("ray.get", lambda _: [("near", _identity()), ("elsewhere", _identity() | {name: "0.1"})])
    with pytest.raises(UserError, match=f"on elsewhere has {name} 0.1, this machine "):
        far.wait_warm()
    monkeypatch.setattr("ray.get", lambda _: [("near", _identity())])
    far.wait_warm()


@pytest.mark.parametrize("workers", [1, 5, 6, 7, 11, 16, 64])
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_by_default_every_worker_finds_its_share_of_a_gpu(workers, gpus):
    some = pool()
    some._size = workers
    share = some._share_of_gpu(float(gpus))
    assert 0 < share <= 0.2
    assert round(share * 10_000, 6).is_integer()  # Ray rounds what is finer
    assert gpus * int(10_000 // round(share * 10_000)) >= workers
    assert some._share_of_gpu(0.0) == 0.0
