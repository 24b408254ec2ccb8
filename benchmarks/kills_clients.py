"""Runs with real clients that are killed: the server, or one of three enrolled clients that talk to it by TLS.

The clients stay for all runs. One that is killed is started anew at once, as a service manager would; the server is
resumed.
"""

import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.command import CommandFailedError, run
from benchmarks.deployment import Processes, free_port
from benchmarks.kill_outcomes import AGAIN, LONGEST, RESUMES, phase_of, read

CLIENTS, ENTRIES, ROUNDS = 3, 3, 40
OPTIONS = (
    *("--clients", str(CLIENTS), "--model", "mlp", "--rounds", str(ROUNDS), "--learning-rate", "0.05"),
    *("--client-eval", "5", "--strategies", "fedavg", "scaffold", "fedadam"),
)
_LOOK_SECONDS = 0.02


class DeployedRuns:
    """See `benchmarks.kill_outcomes.Runs`."""

    targets: Sequence[str] = ("server", "client")
    notes: Sequence[str] = (
        f"`python -m server {' '.join(OPTIONS)}` on digits, and {CLIENTS} `python -m client`, enrolled, by TLS.",
        "A killed client is started anew at once, a killed server resumed; the other clients live through all runs.",
    )

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        with ExitStack() as unless_started:
            unless_started.callback(self._stack.close)
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self._processes = self._stack.enter_context(Processes(self._folder))
            self._prepare()
            unless_started.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def undisturbed(self, folder: Path) -> float:
        """See `Runs`."""
        begun = time.monotonic()
        server = self._serve(_new(folder))
        while not read(folder / "rounds.csv") and server.poll() is None and time.monotonic() < begun + LONGEST:
            time.sleep(_LOOK_SECONDS)
        self._start_up = time.monotonic() - begun
        if self._status(server, "the undisturbed run") != 0:
            raise CommandFailedError(f"the undisturbed run does not finish\n{self._said()}")
        return time.monotonic() - begun

    def disturbed(
        self, folder: Path, target: str, moment: float, life: float, random: np.random.Generator
    ) -> tuple[str, int] | None:
        """See `Runs`."""
        server, resumes = self._serve(_new(folder)), 0
        phase = self._kill(server, target, moment, folder, random)
        what = f"{target} killed after {moment:.2f} s ({phase})"
        while self._status(server, what) == -signal.SIGKILL:
            resumes += 1
            if resumes > RESUMES:
                raise CommandFailedError(f"{what}: not through after {RESUMES} resumes\n{self._said()}")
            begun = (folder / "run.json").exists()
            server = self._serve(["--resume", str(folder)] if begun else _new(folder))
            if random.random() < AGAIN:
                other = self.targets[int(random.integers(len(self.targets)))]
                self._kill(server, other, float(random.uniform(0, life)), folder, random)
        return (phase, resumes) if phase else None

    # -- within

    def _prepare(self) -> None:
        """Cut the data, enrol the clients and start them."""
        folder, names = self._folder, [f"site-{client}" for client in range(CLIENTS)]
        split = ("--dataset", "digits", "--clients", str(CLIENTS), "--out", str(folder / "shards"))
        run("-m", "task.data", "split", *split, log=folder / "split.log")
        port = str(free_port())
        where = ("--host", "127.0.0.1", "--port", port, "--federation", str(folder / "federation"))
        run("-m", "server", "enroll", *names, *where, log=folder / "enroll.log")
        self._service = (
            *("--listen", f"127.0.0.1:{port}", "--federation", str(folder / "federation")),
            *("--test", str(folder / "shards" / "test.npz")),
        )
        self._started = 0
        self._clients = [self._start_client(client) for client in range(CLIENTS)]

    def _start_client(self, client: int) -> "subprocess.Popen[bytes]":
        identity, shard = f"federation/clients/site-{client}.identity", f"shards/shard-{client}.npz"
        return self._start("-m", "client", "--identity", identity, "--shard", shard)

    def _serve(self, options: Sequence[str]) -> "subprocess.Popen[bytes]":
        return self._start("-m", "server", "--quiet", *self._service, *options)

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        self._started += 1  # a log of its own for each process
        return self._processes.start(f"{self._started:03}-{words[1]}", "python", *words)

    def _kill(
        self,
        server: "subprocess.Popen[bytes]",
        target: str,
        moment: float,
        folder: Path,
        random: np.random.Generator,
    ) -> str:
        """Kill at that many seconds of an undisturbed run's life; the phase, none if the server had ended.

        A busy machine starts more slowly: what is later than the start-up is counted from the first row.
        """
        begins, hangs = time.monotonic() + min(moment, self._start_up), time.monotonic() + LONGEST
        while time.monotonic() < begins or (moment > self._start_up and not read(folder / "rounds.csv")):
            if server.poll() is not None or time.monotonic() > hangs:
                return ""
            time.sleep(_LOOK_SECONDS)
        time.sleep(max(0.0, moment - self._start_up))
        if server.poll() is not None:
            return ""
        client = int(random.integers(CLIENTS))
        victim = server if target == "server" else self._clients[client]
        victim.kill()
        victim.wait()
        if target == "client":
            self._clients[client] = self._start_client(client)
        return phase_of(folder, ENTRIES * (ROUNDS + 1))

    def _status(self, server: "subprocess.Popen[bytes]", what: str) -> int:
        """Wait for the server's end: 0, or that of a kill.

        Raises:
            CommandFailedError: it hangs or ends in another way, or a client ends by itself, or there is a traceback.
        """
        until = time.monotonic() + LONGEST
        while server.poll() is None:
            if time.monotonic() > until:
                raise CommandFailedError(f"{what}: it hangs\n{self._said()}")
            time.sleep(_LOOK_SECONDS)
        if server.returncode not in (0, -signal.SIGKILL):
            raise CommandFailedError(f"{what}: the server ended with status {server.returncode}\n{self._said()}")
        if ended := [client for client, process in enumerate(self._clients) if process.poll() is not None]:
            raise CommandFailedError(f"{what}: client {ended[0]} has ended by itself\n{self._said()}")
        if "Traceback" in self._said():
            raise CommandFailedError(f"{what}: a traceback\n{self._said()}")
        return int(server.returncode)

    def _said(self) -> str:
        """The last lines of the server and of each client that lives, or lived last."""
        logs = sorted(self._folder.glob("[0-9]*.log"))[-2 * CLIENTS - 1 :]
        return "\n".join(f"--- {log.stem}\n{self._processes.tail(log.stem)}" for log in logs)


def _new(folder: Path) -> list[str]:
    return [*OPTIONS, "--out", str(folder)]
