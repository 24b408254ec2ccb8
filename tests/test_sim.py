"""`python sim.py` from outside: real processes, real Ray, real signals."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, run_sim

ROUNDS = "scenario,strategy,seed,round,test_accuracy,test_loss,clients_ok,clients_rejected,bytes_up,bytes_down,seconds"
CLIENTS = "scenario,strategy,seed,round,client,num_examples,local_steps,local_norm,train_loss,seconds,status,reason"
OURS = ["fedavg", "fedmedian", "weighted", "fednova"]
ONE_WORKER = ["--workers", "1"]  # enough where it makes no difference: each imports TensorFlow
ADAM = "flwr.serverapp.strategy.FedAdam:eta=0.01"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def hashes(folder: Path) -> dict[str, str]:
    results = json.loads((folder / "run.json").read_text())["results"]
    return {key: result["sha256"] for key, result in results.items()}


def start_sim(*options: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sim.py"), *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a shell does; the signal is then sent to all of it
    )


def wait_for_round(folder: Path, server_round: int, process: subprocess.Popen[str]) -> None:
    """Until some strategy has finished this round."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if (folder / "rounds.csv").exists() and any(
            int(r["round"]) >= server_round for r in rows(folder, "rounds.csv")
        ):
            return
        time.sleep(0.05)
    raise AssertionError("no such round in two minutes")


def left_behind(session: int) -> list[str]:
    """Processes of a session that still live."""
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["name"])
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.fixture(scope="module")
def common(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small comparison, on cached shards of the tests' own."""
    os.environ["FEDARENA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return ["--dataset", str(small_data), "--model", "mlp", "--clients", "3", "--batch-size", "16"]


@pytest.fixture(scope="module")
def finished(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: ours and one of Flower's, two seeds, six rounds."""
    folder = tmp_path_factory.mktemp("run") / "out"
    done = run_sim(*common, "--strategies", *OURS, ADAM, "--seeds", "0", "1", "--rounds", "6", "--out", folder)
    assert done.returncode == 0, done.stderr + (folder / "run.log").read_text()[-3000:]
    (folder / "stdout.txt").write_text(done.stdout)
    assert done.stderr == ""
    return folder


def test_all_files_of_a_run(finished: Path):
    assert (finished / "rounds.csv").read_text().splitlines()[0] == ROUNDS
    assert (finished / "clients.csv").read_text().splitlines()[0] == CLIENTS
    assert len(rows(finished, "rounds.csv")) == 5 * 2 * 7
    assert len(rows(finished, "clients.csv")) == 5 * 2 * 6 * 3
    assert {row["status"] for row in rows(finished, "clients.csv")} == {"ok"}
    for name in ("curves.png", "report.html", "run.log", "timing.json"):
        assert (finished / name).stat().st_size > 0
    run = json.loads((finished / "run.json").read_text())
    assert (run["status"], run["exit_status"]) == ("finished", 0)
    assert run["config"]["clients"] == 3
    assert {"python", "flwr", "tensorflow", "keras", "ray"} <= set(run["versions"])
    assert len(run["data"]["sha256"]) == 64
    assert len(list((finished / "checkpoints").iterdir())) == 5 * 2 * 2
    for strategy in OURS:
        final = [r for r in rows(finished, "rounds.csv") if (r["strategy"], r["round"]) == (strategy, "6")]
        assert all(float(row["test_accuracy"]) > 0.9 for row in final)


def test_hashes_are_those_of_the_saved_models(finished: Path):
    import keras

    for (key, expected), entry in zip(hashes(finished).items(), range(99), strict=False):
        scenario, strategy, seed = key.split("/")
        if strategy == ADAM or entry > 3:
            continue
        model = keras.saving.load_model(finished / "models" / f"{scenario}-{strategy}-{seed}.keras", compile=False)
        total = hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights()))
        assert total.hexdigest() == expected


def test_what_coincides_coincides_to_the_bit_and_is_said(finished: Path):
    by = hashes(finished)
    for seed in ("seed0", "seed1"):
        assert len({by[f"iid/{name}/{seed}"] for name in ("fedavg", "weighted", "fednova")}) == 1
        assert by[f"iid/fedmedian/{seed}"] != by[f"iid/fedavg/{seed}"]
    assert by["iid/fedavg/seed0"] != by["iid/fedavg/seed1"]
    told = (finished / "stdout.txt").read_text()
    assert "fedavg, weighted and fednova coincided to the bit: equal shards" in told
    assert str(finished) in told


def test_one_strategy_alone_on_one_worker_gives_the_same_bits(common, finished, tmp_path):
    options = [*common, "--strategies", "fednova", "--rounds", "6", "--workers", "1", "--quiet"]
    done = run_sim(*options, "--out", tmp_path / "alone")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    alone = hashes(tmp_path / "alone")
    assert alone == {"iid/fednova/seed0": hashes(finished)["iid/fednova/seed0"]}


def test_ctrl_c_ends_cleanly_and_resume_gives_the_same_bits(common, finished, tmp_path):
    folder = tmp_path / "out"
    options = ["--strategies", *OURS, ADAM, "--seeds", "0", "1", "--rounds", "6", *ONE_WORKER]
    process = start_sim(*common, *options, "--out", folder)
    wait_for_round(folder, 2, process)
    os.killpg(process.pid, signal.SIGINT)
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 20  # 5 s on a machine that does nothing else; see docs/benchmarks.md
    assert "Traceback" not in out + err
    assert left_behind(process.pid) == []
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert (folder / "report.html").exists()
    done = run_sim("--resume", folder)
    assert done.returncode == 0, done.stderr + (folder / "run.log").read_text()[-3000:]
    assert hashes(folder) == hashes(finished)
    keys = [(r["strategy"], r["seed"], r["round"]) for r in rows(folder, "rounds.csv")]
    assert len(keys) == len(set(keys)) == 5 * 2 * 7


def test_kill_9_loses_no_finished_round(common, finished, tmp_path):
    folder = tmp_path / "out"
    options = ["--strategies", "weighted", "fedmedian", "--rounds", "6", *ONE_WORKER]
    process = start_sim(*common, *options, "--out", folder)
    wait_for_round(folder, 3, process)
    process.kill()
    process.communicate(timeout=30)
    before = {(r["strategy"], r["round"]): r["test_loss"] for r in rows(folder, "rounds.csv")}
    end = time.monotonic() + 30
    while time.monotonic() < end and any("Worker" in name for name in left_behind(process.pid)):
        time.sleep(0.2)
    assert not [name for name in left_behind(process.pid) if "Worker" in name or name == "raylet"]
    assert run_sim("--resume", folder, *ONE_WORKER).returncode == 0
    assert hashes(folder).items() <= hashes(finished).items()
    after = {(r["strategy"], r["round"]): r["test_loss"] for r in rows(folder, "rounds.csv")}
    assert before.items() <= after.items()


def test_a_killed_worker_is_replaced_and_nobody_is_lost(common, finished, tmp_path):
    folder = tmp_path / "out"
    process = start_sim(*common, "--strategies", "weighted", "fedmedian", "--rounds", "6", "--out", folder)
    wait_for_round(folder, 1, process)
    workers = [p for p in psutil.process_iter(["cmdline"]) if os.getsid(p.pid) == process.pid and _is_worker(p)]
    assert len(workers) == 2
    workers[0].kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert hashes(folder).items() <= hashes(finished).items()
    assert {row["status"] for row in rows(folder, "clients.csv")} == {"ok"}


def test_a_ray_that_dies_is_one_line_and_the_rows_are_kept(common, tmp_path):
    """Ray itself would end the process some seconds later, without a word."""
    folder = tmp_path / "out"
    options = ["--strategies", "weighted", "fedmedian", "--rounds", "2000", "--quiet", *ONE_WORKER]
    process = start_sim(*common, *options, "--out", folder)
    wait_for_round(folder, 2, process)
    [raylet] = [child for child in psutil.Process(process.pid).children() if child.name() == "raylet"]
    raylet.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out + err
    why = "Ray on this machine has died: its process raylet is gone (killed, or was memory short?)"
    assert err.splitlines()[-1] == f"sim.py: {why}; go on with --resume {folder}"
    assert "Traceback" not in out + err
    end = time.monotonic() + 30
    while left_behind(process.pid):  # what raylet had started sees that it is gone, and goes
        assert time.monotonic() < end, left_behind(process.pid)
        time.sleep(0.1)
    assert max(int(row["round"]) for row in rows(folder, "rounds.csv")) >= 2


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "ray::Worker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


# Clients that raise -------------------------------------------------------------------------------------------------

PICKY = """
import keras
import tensorflow as tf


@keras.saving.register_keras_serializable()
class Picky(keras.layers.Layer):
    def call(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 5.0, message="a pixel is too bright")]):
            return tf.identity(x)


def build(input_shape, num_classes):
    layers = [keras.Input(input_shape), Picky(), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential(layers)
"""


def bright_shards(folder: Path, small_data: Path, bright: set[int]) -> Path:
    """Three ready shards; the clients in `bright` hold an example at which the model PICKY raises."""
    folder.mkdir()
    with np.load(small_data) as data:
        order = np.random.default_rng(0).permutation(len(data["y_train"]))
        for client, part in enumerate(np.array_split(order, 3)):
            x = data["x_train"][part].copy()
            if client in bright:
                x[0, 0, 0] = 9
            np.savez(folder / f"shard-{client}.npz", x=x, y=data["y_train"][part])
        np.savez(folder / "test.npz", x=data["x_test"], y=data["y_test"])
    return folder


def picky(tmp_path: Path, small_data: Path, bright: set[int], *more: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "picky.py").write_text(PICKY)
    shards = bright_shards(tmp_path / "shards", small_data, bright)
    options = ["--dataset", str(shards), "--model", "picky:build", "--rounds", "2", "--out", str(tmp_path / "out")]
    return run_sim(*options, *more, *ONE_WORKER, cwd=tmp_path)


def test_a_client_that_raises_is_named_and_the_round_goes_on(small_data, tmp_path):
    done = picky(tmp_path, small_data, {1}, "--strategies", "fedavg", "fedmedian")
    assert done.returncode == 0, done.stderr
    bad = [row for row in rows(tmp_path / "out", "clients.csv") if row["status"] != "ok"]
    assert [(row["client"], row["status"]) for row in bad] == [("1", "failed")] * 4
    assert all("a pixel is too bright" in row["reason"] for row in bad)
    assert {row["clients_rejected"] for row in rows(tmp_path / "out", "rounds.csv")} == {"0", "1"}
    assert "client 1 failed: InvalidArgumentError: assertion failed: [a pixel is too bright]" in done.stdout


def test_without_any_valid_update_the_run_fails_with_status_1(small_data, tmp_path):
    done = picky(tmp_path, small_data, {0, 1, 2}, "--strategies", "fedavg", "--quiet")
    assert done.returncode == 1
    assert "round 1 brought no valid update from 3 clients" in done.stderr
    assert "Traceback" not in done.stderr
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["exit_status"] == 1
    assert "no valid update" in run["results"]["iid/fedavg/seed0"]["ended"]


# A user's mistakes --------------------------------------------------------------------------------------------------


def expect_one_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sim.py: ")
    for word in says:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--strategies", "fedmedain"], ["fedmedain", "did you mean 'fedmedian'"]),
        (["--strategies", "no.such.Strategy"], ["no.such.Strategy", "ModuleNotFoundError"]),
        (["--dataset", "nowhere.npz"], ["nowhere.npz"]),
        (["--dataset", "imagenet"], ["imagenet", "mnist-5k"]),
        (["--scenario", "marsian"], ["marsian", "iid"]),
        (["--clients", "4000"], ["clients"]),
        (["--sample", "9", "--clients", "5"], ["sample (9) is more than clients (5)"]),
        (["--optimizer", "adam"], ["fednova is not defined for the optimizer adam"]),
        (["--rounds", "ten"], ["--rounds", "ten"]),
        (["--workers", "999"], ["not enough memory for 999 workers"]),
        (["--workers", "0"], ["--workers"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["--resume", "nowhere", "--rounds", "3"], ["--resume", "leave out --rounds"]),
        (["--model", "cmm"], ["unknown model 'cmm'", "cnn"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line_and_status_2(options, says, tmp_path):
    expect_one_line(run_sim(*options, *([] if "--resume" in options else ["--out", tmp_path / "out"])), *says)
    assert not (tmp_path / "out").exists()  # so that it can be used when the mistake is mended


def test_a_folder_that_holds_another_run_or_cannot_be_one_is_refused(finished, tmp_path):
    expect_one_line(run_sim("--out", finished), str(finished), "--out", "--resume")
    (tmp_path / "file").write_text("")
    expect_one_line(run_sim("--out", tmp_path / "file"), "file")
    expect_one_line(run_sim("--out", tmp_path / "file" / "below"), "file")
    expect_one_line(run_sim("--out", "/proc/nowhere"), "/proc/nowhere")


def test_damaged_data_is_named(small_data, tmp_path):
    whole = small_data.read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    expect_one_line(run_sim("--dataset", tmp_path / "torn.npz", "--out", tmp_path / "out"), "torn.npz")
    shards = bright_shards(tmp_path / "shards", small_data, set())
    with np.load(shards / "shard-1.npz") as data:
        x, y = data["x"], data["y"]
    np.savez(shards / "shard-1.npz", x=x[:0], y=y[:0])
    expect_one_line(run_sim("--dataset", shards, "--out", tmp_path / "out"), "shard-1.npz")
    np.savez(shards / "shard-1.npz", x=x, y=np.where(y == 2, 77, y))
    expect_one_line(run_sim("--dataset", shards, "--out", tmp_path / "out"), "shard-1.npz", "77")
    assert not (tmp_path / "out").exists()
