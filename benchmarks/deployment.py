"""Real processes on one machine: what a round costs beside the training, for the product and for stock Flower.

The product: `python -m server` and five `python -m client`, enrolled, TLS and authentication on, the CNN on mnist-5k.
Overhead of a round: its wall seconds, from sending to the evaluated model, less the training of the slowest client.

Stock Flower: `flower-superlink`, five `flower-supernode`, `flwr run` of an app in which arrays as large as the CNN's
cost nothing to train (`benchmarks/stock_app`), without TLS, so that a round is nothing but overhead; once as
`Strategy.start` does it, with federated evaluation, and once with training alone.
"""

import csv
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.command import QUIET, ROOT, SHARDS, CommandFailedError, ensure_shards, run
from benchmarks.table import Table

FOLDER = ROOT / "runs" / "benchmarks" / "deployment"
CLIENTS = 5
PATIENCE = 600.0  # seconds
_BIN = Path(sys.executable).parent


class Processes(ExitStack):
    """Processes that end with the block, and the largest resident memory of each.

    Args:
        folder: where their output goes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.peaks: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one; `python` stands for this interpreter, `sh` for the shell, others for programs beside it."""
        first, *rest = command
        program = {"python": sys.executable, "sh": "/bin/sh"}.get(first, str(_BIN / first))
        path = {"PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        output = self.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [program, *rest],
            cwd=self._folder,
            env=os.environ | QUIET | path | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running[name] = process
        self.callback(_end, process)
        return process

    def wait_for(self, name: str) -> int:
        """Until this one has ended, watching the memory of all; its exit status.

        Raises:
            CommandFailedError: it takes too long.
        """
        until = time.monotonic() + PATIENCE
        while self._running[name].poll() is None:
            for other, process in self._running.items():
                with suppress(psutil.Error):
                    now = psutil.Process(process.pid).memory_info().rss
                    self.peaks[other] = max(self.peaks.get(other, 0), int(now))
            if time.monotonic() > until:
                raise CommandFailedError(f"{name} has not ended after {PATIENCE:.0f} s\n{self.tail(name)}")
            time.sleep(0.02)
        return int(self._running[name].returncode)

    def tail(self, name: str) -> str:
        """The end of a process's output."""
        return "\n".join((self._folder / f"{name}.log").read_text(errors="replace").splitlines()[-20:])


def measure(*, quick: bool) -> list[Table]:
    """Overheads, start-up, and a large model."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    ensure_shards()
    repetitions, rounds = (1, 3) if quick else (3, 10)
    ours = [_product(FOLDER / f"product-{i}", rounds) for i in range(repetitions)]
    stock = _stock(FOLDER / "stock", 2 if quick else 3, evaluate=True)
    trained = _stock(FOLDER / "stock-training", 2 if quick else 3, evaluate=False)
    return [_rounds_table(ours, stock, trained), _large_table(_large(3 if quick else 5))]


def _product(folder: Path, rounds: int) -> dict[str, float]:
    folder.mkdir()
    run("-m", "server", "enroll", *(f"site-{k}" for k in range(CLIENTS)), "--host", "127.0.0.1", "--federation",
        str(folder / "federation"), log=folder / "enroll.log")  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    with Processes(folder) as processes:
        processes.start(
            "server", "python", "-m", "server", "--listen", address, "--test", str(SHARDS / "test.npz"),
            "--strategies", "fedavg", "--rounds", str(rounds), "--out", str(folder / "out"), "--quiet",
        )  # fmt: skip
        for k in range(CLIENTS):
            identity = folder / "federation" / "clients" / f"site-{k}.identity"
            processes.start(
                f"client-{k}", "python", "-m", "client", "--server", address, "--identity", str(identity),
                "--shard", str(SHARDS / f"shard-{k}.npz"), "--once",
            )  # fmt: skip
        if processes.wait_for("server"):
            raise CommandFailedError(f"the server failed\n{processes.tail('server')}")
    return _read(folder / "out")


def _read(out: Path) -> dict[str, float]:
    """Medians over the rounds after the first, and milestones of the start."""
    timing = json.loads((out / "timing.json").read_text())
    training: dict[int, float] = {}
    for row in _rows(out / "clients.csv"):
        training[int(row["round"])] = max(training.get(int(row["round"]), 0.0), float(row["seconds"]))
    later = [row for row in _rows(out / "rounds.csv") if int(row["round"]) > 1]
    return {
        "round": statistics.median(float(row["seconds"]) for row in later),
        "overhead": statistics.median(float(row["seconds"]) - training[int(row["round"])] for row in later),
        "most": max(float(row["seconds"]) - training[int(row["round"])] for row in later),
        "start": timing["milestones"]["first messages sent"],
        "first": timing["first_round_all"] - timing["started"],
    }


def _stock(folder: Path, rounds: int, *, evaluate: bool) -> float:
    """Seconds of one round of stock Flower: the median over the rounds after the first."""
    folder.mkdir()
    address, times = f"127.0.0.1:{free_port()}", folder / "times.json"
    home = folder / "home"
    home.mkdir()
    connection = f'address = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "lab"\n\n[superlink.lab]\n{connection}')
    host, _, port = address.partition(":")
    with Processes(folder) as processes:
        environment = {"FLWR_HOME": str(home)}
        processes.start(
            "superlink", "flower-superlink", "--insecure", "--host", host, "--port", port,
            "--disable-runtime-dependency-installation", **environment,
        )  # fmt: skip
        for k in range(CLIENTS):
            processes.start(
                f"supernode-{k}", "flower-supernode", "--insecure", "--superlink", address,
                "--node-config", f"partition-id={k} num-partitions={CLIENTS}", "--port", str(free_port()),
                FLWR_HOME=str(folder / f"home-{k}"),
            )  # fmt: skip
        _wait_until_open(int(port))
        config = f"rounds={rounds} times='{times}' fraction-evaluate={1.0 if evaluate else 0.0}"
        processes.start(
            "run", "flwr", "run", str(ROOT / "benchmarks" / "stock_app"), "lab", "--stream", "--run-config", config,
            **environment,
        )  # fmt: skip
        processes.wait_for("run")
        ends: list[float] = json.loads(times.read_text()) if times.exists() else []
        if len(ends) <= rounds:
            raise CommandFailedError(f"stock Flower did not finish\n{processes.tail('run')}")
    return statistics.median(after - before for before, after in itertools.pairwise(ends[1:]))


def _large(rounds: int) -> dict[str, Any]:
    folder = FOLDER / "large"
    folder.mkdir()
    run("-m", "task.data", "split", "--clients", "2", "--out", str(folder / "shards"), log=folder / "split.log")
    run("-m", "server", "enroll", "a", "b", "--host", "127.0.0.1", "--federation", str(folder / "federation"),
        log=folder / "enroll.log")  # fmt: skip
    address, model = f"127.0.0.1:{free_port()}", "benchmarks.large_model:build"
    with Processes(folder) as processes:
        processes.start(
            "server", "python", "-m", "server", "--listen", address, "--test", str(folder / "shards" / "test.npz"),
            "--clients", "2", "--strategies", "fedavg", "--rounds", str(rounds), "--model", model, "--steps", "1",
            "--out", str(folder / "out"), "--quiet",
        )  # fmt: skip
        for k, name in enumerate("ab"):
            processes.start(
                f"client-{k}", "python", "-m", "client", "--server", address, "--once", "--model", model,
                "--identity", str(folder / "federation" / "clients" / f"{name}.identity"),
                "--shard", str(folder / "shards" / f"shard-{k}.npz"),
            )  # fmt: skip
        if processes.wait_for("server"):
            raise CommandFailedError(f"the server failed\n{processes.tail('server')}")
    bytes_down = int(_rows(folder / "out" / "rounds.csv")[-1]["bytes_down"])
    return {**_read(folder / "out"), "megabytes": bytes_down / 2 / 1e6, "peaks": processes.peaks}


def _rounds_table(ours: list[dict[str, float]], stock: float, trained: float) -> Table:
    def median(name: str) -> float:
        return statistics.median(one[name] for one in ours)

    overhead = median("overhead")
    return Table(
        "One server and five clients as processes of their own, one strategy, CNN on mnist-5k, 1 local epoch",
        ("measure", "seconds", "target"),
        (
            ("round, from sending to the evaluated model", f"{median('round'):.2f}", ""),
            ("overhead: less the training of the slowest client", f"{overhead:.2f}", "<= 1.0"),
            ("largest overhead of any round after the first", f"{max(one['most'] for one in ours):.2f}", ""),
            ("from the command of the server to the first messages", f"{median('start'):.1f}", "<= 15"),
            ("from the command of the server to the end of round 1", f"{median('first'):.1f}", ""),
            ("stock Flower: a round of `start`, nothing to compute", f"{stock:.1f}", ""),
            ("stock Flower: the same without evaluation", f"{trained:.1f}", ""),
            ("ratio of overheads, stock / product", f"{stock / overhead:.0f}x", ">= 10x"),
            ("ratio without stock's evaluation", f"{trained / overhead:.0f}x", ""),
        ),
        (
            f"Product: medians of {len(ours)} runs, all six processes started at once, TLS and authentication on.",
            "Stock Flower: flower-superlink, five flower-supernode, flwr run; no TLS, and no TensorFlow to import.",
        ),
    )


def _large_table(large: dict[str, Any]) -> Table:
    peaks = large["peaks"]
    return Table(
        f"A model of {large['megabytes']:.0f} MB, two clients, TLS and authentication on",
        ("measure", "value"),
        (
            ("round, from sending to the evaluated model", f"{large['round']:.1f} s"),
            ("overhead: less the training of the slower client", f"{large['overhead']:.1f} s"),
            ("peak resident memory of the server", f"{peaks['server'] / 1e9:.2f} GB"),
            ("of the clients", " and ".join(f"{peaks[f'client-{k}'] / 1e9:.2f} GB" for k in range(2))),
        ),
        ("Each round sends the model to both clients and back: four times its size.",),
    )


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def free_port() -> int:
    """A TCP port of the loopback interface on which nobody listens right now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_until_open(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise CommandFailedError(f"nothing listens on port {port}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for signal_number, patience in ((15, 5.0), (9, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
