"""Real deployments for tests: `python -m server` and `python -m client` as processes that a test talks to and ends.

    with Deployment(folder) as deployment:
        server = deployment.server("--test", shards / "test.npz", "--rounds", 2)
        client = deployment.client(0, shards, "--once")
        server.says("client 0 is here")
        assert client.status() == 0

Nobody sleeps: a test waits for what a process says, writes or returns, and when that does not come in time it fails
with everything that every process of the deployment has said.
"""

import csv
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
import pytest
from hosts import Host, Network

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 90.0  # seconds for anything that takes a few; a machine that others use, too, is slow at times
PORT = 9092
SMALL = ["--model", "mlp", "--batch-size", "16", "--rounds", "3", "--strategies", "fedavg", "fedmedian"]
SMALL += ["--steps", "4000"]  # a third of a second of training, to be in the middle of
CLIENTS = 3  # of the small federation

_LOOK = 0.02


class Process:
    """A program that runs, and what it has said so far, stdout and stderr in one.

    Attributes:
        name: what the test calls it.
        popen: the process.
        lines: what it said.
    """

    def __init__(self, name: str, popen: "subprocess.Popen[str]", tell: Callable[[], str]) -> None:
        self.name, self.popen, self.lines = name, popen, list[str]()
        self._tell, self._more, self._read = tell, threading.Condition(), 0
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def says(self, pattern: str, seconds: float = PATIENCE) -> "re.Match[str]":
        """The next line that holds this pattern, after those that earlier calls found.

        Raises:
            AssertionError: the process ended without such a line, or the time was over.
        """
        until = time.monotonic() + seconds
        with self._more:
            while True:
                for at in range(self._read, len(self.lines)):
                    if found := re.search(pattern, self.lines[at]):
                        self._read = at + 1
                        return found
                ended, left = not self._reader.is_alive(), until - time.monotonic()
                if ended or left <= 0:
                    why = "ended" if ended else f"did not in {seconds:.0f} s"
                    raise AssertionError(f"{self.name} should have said {pattern!r} and {why}\n{self._tell()}")
                self._more.wait(min(left, 0.5))

    def status(self, seconds: float = PATIENCE) -> int:
        """Its exit status, when it ends.

        Raises:
            AssertionError: it did not end in time.
        """
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} should have ended in {seconds:.0f} s\n{self._tell()}") from None
        self._reader.join(seconds)
        return status

    def kill(self) -> None:
        """End it as a lost machine would: without a word."""
        self.popen.kill()
        self.popen.wait(PATIENCE)

    def send(self, signal_number: int) -> None:
        """A signal, to this process alone."""
        self.popen.send_signal(signal_number)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    @property
    def text(self) -> str:
        """All that it said."""
        return "\n".join(self.lines)

    def errors(self) -> list[str]:
        """The lines in which the command says what the user should mend."""
        return [line for line in self.lines if line.startswith("python -m ")]

    def session(self) -> list[str]:
        """Names of the processes of its session that still live, itself among them."""
        found = []
        for process in psutil.process_iter(["name", "status"]):
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == self.popen.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process.info["name"])
        return found

    def _listen(self) -> None:
        assert self.popen.stdout
        with self.popen.stdout as out:
            for line in out:
                with self._more:
                    self.lines.append(line.rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._more.notify_all()


class Deployment:
    """A server and its clients on the hosts of one network; leaving it ends every process.

    Args:
        folder: where the server's results, the logs and identities go.
        isolate: False for loopback even where network namespaces work.

    Attributes:
        network: its hosts; "server" is one of them.
        folder: as given.
        address: HOST:PORT of the server.
    """

    def __init__(self, folder: Path, *, isolate: bool = True) -> None:
        self.folder, self.network = folder, Network(isolate=isolate)
        self.address = ""
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        self.network.__enter__()
        host = self.network.host("server").address
        self.address = f"{host}:{PORT if self.network.isolated else free_port(host)}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.__exit__(kind, error, trace)

    @property
    def federation(self) -> Path:
        """The folder that `enroll` makes."""
        return self.folder / "federation"

    def run(self, *words: Any, host: str = "server", name: str = "", **environment: str) -> Process:
        """Start `python ...` on a host of the network, in the deployment's folder."""
        words = tuple(map(str, words))
        popen = self.network.host(host).popen(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        process = Process(name or " ".join(words[1:3]), popen, self.told)
        self._processes.append(process)
        return process

    def server(self, *options: Any, address: str = "") -> Process:
        """`python -m server`, at the deployment's address unless another is given."""
        listen = ["--listen", address or self.address]
        return self.run("-m", "server", *listen, *options, name="server")

    def client(self, number: int, shards: Path, *options: Any, host: str = "") -> Process:
        """`python -m client` with a shard, on a host of its own; it logs to `logs`."""
        given = ["--shard", shards / f"shard-{number}.npz", "--server", self.address, *options]
        return self.run("-m", "client", *given, host=host or f"client-{number}", name=f"client {number}")

    def manage(self, *words: Any) -> str:
        """`python -m server enroll ...` and the like; what it printed."""
        process = self.run("-m", "server", *words, name=f"server {words[0]}")
        assert process.status() == 0, process.text
        return process.text

    def end_servers(self) -> None:
        """Kill what servers still run, such as those of a test that failed."""
        for process in self._processes:
            if process.name == "server" and process.running:
                process.kill()

    def host(self, number: int) -> Host:
        """Where a client runs."""
        return self.network.host(f"client-{number}")

    def told(self) -> str:
        """Everything that every process has said."""
        return "\n".join(
            f"--- {process.name} (pid {process.popen.pid}, status {process.popen.poll()})\n{process.text}"
            for process in self._processes
        )


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nobody listens right now."""
    with socket.create_server((host, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE, told: Callable[[], str] = str) -> Any:
    """What a condition gives as soon as that is true of it.

    Raises:
        AssertionError: it was not in time.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not in {seconds:.0f} s\n{told()}"
        time.sleep(_LOOK)
    return value


def read_events(file: Path) -> list[dict[str, Any]]:
    """The lines of a log file; the last one may be half written and is left out then."""
    events = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with suppress(ValueError):
            events.append(json.loads(line))
    return events


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of rounds.csv or clients.csv."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def columns(folder: Path, name: str, *wanted: str) -> list[tuple[str, ...]]:
    """Some columns of a file, sorted, since strategies and clients finish in any order."""
    return sorted(tuple(row[column] for column in wanted) for row in rows(folder, name))


def read_run(folder: Path) -> dict[str, Any]:
    """run.json."""
    run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return run


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every strategy's final weights."""
    return {key: result["sha256"] for key, result in read_run(folder)["results"].items()}


def complete(folder: Path, clients: int, rounds: int, strategies: list[str]) -> None:
    """See that a run of seed 0 finished, lost nobody's answer and left all files that it promises."""
    run = read_run(folder)
    assert (run["status"], run["exit_status"]) == ("finished", 0)
    assert sorted(run["results"]) == [f"iid/{strategy}/seed0" for strategy in sorted(strategies)]
    played = [(name, str(number)) for name in strategies for number in range(rounds + 1)]
    assert columns(folder, "rounds.csv", "strategy", "round") == sorted(played)
    asked = sorted((*one, str(k), "ok", "") for one in played if one[1] != "0" for k in range(clients))
    assert columns(folder, "clients.csv", "strategy", "round", "client", "status", "reason") == asked
    for name in ("curves.png", "report.html", "run.log", "timing.json", "events.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    models = sorted(path.name for path in (folder / "models").iterdir())
    assert models == sorted(f"iid-{strategy}-seed0.keras" for strategy in strategies)
    assert len(list((folder / "checkpoints").iterdir())) > 0


def saved_digest(model: Path) -> str:
    """SHA-256 of the weights in a .keras file."""
    import keras

    weights = keras.saving.load_model(model, compile=False).get_weights()
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in weights)).hexdigest()


def split(dataset: str | Path, clients: int, out: Path) -> Path:
    """The folder of a data set's shards, made by the command that users have for it, seed 0."""
    command = [sys.executable, "-m", "task.data", "split", "--dataset", str(dataset)]
    command += ["--clients", str(clients), "--seed", "0", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
    return out


def simulated(folder: Path, *options: Any, cwd: Path = ROOT) -> Path:
    """The folder of a simulation that finished; own models are found from `cwd`."""
    from conftest import run_sim  # which imports this module for its fixtures

    done = run_sim(*options, "--workers", "1", "--out", folder, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Residents:
    """A deployment whose clients stay for all tests of a session, as real ones do; each test brings its own server.

    Attributes:
        deployment: with a host for each client.
        shards: of the small data set.
        expected: the hashes that a run with `SMALL` must come to: those of the simulation.
        clients: by number.
    """

    def __init__(self, deployment: Deployment, shards: Path, expected: dict[str, str]) -> None:
        self.deployment, self.shards, self.expected = deployment, shards, expected
        self.clients = {number: self.start(number) for number in range(CLIENTS)}
        self._runs = 0

    def start(self, number: int) -> Process:
        """The command that every client was started with."""
        return self.deployment.client(number, self.shards, "--insecure")

    def restart(self, number: int) -> Process:
        """Start a client that was ended again, with the same command."""
        self.clients[number] = self.start(number)
        return self.clients[number]

    def serve(self, *options: Any, small: bool = True) -> tuple[Process, Path]:
        """A server for them, and the folder of its run."""
        self._runs += 1
        out = self.deployment.folder / f"out{self._runs}"
        given = ["--insecure", "--test", self.shards / "test.npz", "--clients", CLIENTS]
        return self.deployment.server(*given, *(SMALL if small else ()), "--out", out, *options), out

    def resume(self, out: Path) -> Process:
        """The server again, on what is left of its run."""
        return self.deployment.server("--resume", out)

    def events(self, number: int) -> list[dict[str, Any]]:
        """What a client's log file holds."""
        return read_events(self.deployment.folder / "logs" / f"client-{number}.jsonl")

    def trains(self, number: int, server_round: int) -> str:
        """Wait until a client is in the middle of training for a round of this or a later number; what it trains."""
        begun = len(self.events(number))
        pattern = re.compile(r"training (.+ round (\d+))")

        def now() -> str:
            new = [pattern.fullmatch(event["event"]) for event in self.events(number)[begun:]]
            return next((match[1] for match in new if match and int(match[2]) >= server_round), "")

        return str(until(now, f"client {number} in round {server_round}", told=self.told))

    def freeze(self, number: int, server_round: int) -> str:
        """As `trains`, but the client stands still then, certainly in the middle; what it trains."""
        while True:
            training = self.trains(number, server_round)
            self.clients[number].send(signal.SIGSTOP)
            if self.events(number)[-1]["event"] == f"training {training}":
                return training
            self.clients[number].send(signal.SIGCONT)  # it was faster; the next time then

    def told(self) -> str:
        """Everything that every process has said."""
        return self.deployment.told()

    def mend(self) -> None:
        """Heal, wake or start whatever a test left cut, asleep or dead."""
        for number, client in self.clients.items():
            self.deployment.host(number).heal()
            if client.running:
                client.send(signal.SIGCONT)
            else:
                self.restart(number)


@pytest.fixture(scope="session")
def small_shards(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of the small data set and its test set."""
    return split(small_data, CLIENTS, tmp_path_factory.mktemp("small") / "shards")


@pytest.fixture(scope="session")
def standing(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Residents]:
    """See `residents`."""
    folder = tmp_path_factory.mktemp("residents")
    expected = hashes(simulated(folder / "sim", "--dataset", small_shards, "--clients", CLIENTS, *SMALL))
    with Deployment(folder) as deployment:
        residents = Residents(deployment, small_shards, expected)
        yield residents


@pytest.fixture
def residents(standing: Residents) -> Iterator[Residents]:
    """Three clients on three hosts that live as long as the session; all are well when a test begins."""
    standing.mend()
    yield standing
    standing.deployment.end_servers()
