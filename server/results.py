"""The files of one run's folder: rows that are appended as they happen, and run.json."""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

from server.files import OTHER_FOLDER, RowFile, hold, open_new, remove, write_json
from server.run_json import check_run
from task.cache import PART
from task.config import RunConfig, parse
from task.errors import UserError, remedy
from task.jsontext import read_object

ONE_SHOT = "one-shot"  # the kind of a run, in its run.json

_RUN, _MODELS = "run.json", "models"

Status = Literal["ok", "rejected", "failed"]


class Entry(NamedTuple):
    """One contestant: a strategy in a scenario with a seed."""

    scenario: str
    strategy: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the results in run.json."""
        return f"{self.scenario}/{self.strategy}/seed{self.seed}"


def entries_of(config: RunConfig) -> list[Entry]:
    """All contestants of a comparison, in the order in which they are shown."""
    return [
        Entry(scenario.name, strategy, seed)
        for scenario in config.scenarios
        for strategy in config.strategies
        for seed in config.seeds
    ]


@dataclass(frozen=True)
class RoundRow:
    """A row of rounds.csv; round 0 is the initial model (no clients, no bytes). `task.limits` has the ranges."""

    scenario: str
    strategy: str
    seed: int
    round: int
    test_accuracy: float  # share of the test set, 0..1
    test_loss: float  # mean cross-entropy, nats; NaN or infinite where training diverged, infinite beyond 1e100
    clients_ok: int
    clients_rejected: int  # rejected by the gate, or failed
    bytes_up: int  # model arrays received from clients in this round
    bytes_down: int  # model arrays sent to clients in this round
    seconds: float  # wall seconds from sending the round's messages to its evaluation

    @property
    def entry(self) -> Entry:
        """The contestant that the row is about."""
        return Entry(self.scenario, self.strategy, self.seed)


@dataclass(frozen=True)
class ClientRow:
    """A row of clients.csv: one client in one round.

    What the client says of itself is None where it did not say it, and where its reply was not accepted: nothing of a
    rejected reply is believed.
    """

    scenario: str
    strategy: str
    seed: int
    round: int
    client: int
    num_examples: int | None
    local_steps: int | None
    local_norm: float | None  # None where FedNova defines none for the optimizer
    train_loss: float | None  # NaN or infinite where its training diverged
    seconds: float | None
    status: Status
    reason: str

    @property
    def entry(self) -> Entry:
        """The contestant that the row is about."""
        return Entry(self.scenario, self.strategy, self.seed)


@dataclass(frozen=True)
class LocalRow:
    """A row of local.csv: one client's model beside the global one in a round whose update was used."""

    scenario: str
    strategy: str
    seed: int
    round: int
    client: int
    accuracy_before: float | None  # of the round's global model on the client's training data, 0..1; None: not measured
    accuracy_after: float | None  # of the client's model after training, on the same data
    update_norm: float  # L2 norm of x_i - x over all arrays; infinite beyond 1e100
    # Of x_i - x and the step of the global model; None: one of them is 0, or too small, large or many to compare.
    cosine: float | None

    @property
    def entry(self) -> Entry:
        """The contestant that the row is about."""
        return Entry(self.scenario, self.strategy, self.seed)


class Readable(Protocol):
    """What a run is told from, be it a folder or in memory."""

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""

    def read_rounds(self) -> list[RoundRow]:
        """The rows of rounds.csv."""

    def read_clients(self) -> list[ClientRow]:
        """The rows of clients.csv."""

    def read_local(self) -> list[LocalRow]:
        """The rows of local.csv."""


class RunFolder:
    """The folder of one run, held by one process at a time; `create` or `resume` opens it.

    Safe to use from several threads. A context manager: leaving it closes the files and frees the folder.

    Attributes:
        path: the folder.
        log_path: run.log, where the chatter of the libraries goes.
        events_path: events.jsonl, the log of a server with real clients.
        curves_path: curves.png.
        report_path: report.html.
        checkpoints: the folder of the checkpoints; it exists.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.log_path = path / "run.log"
        self.events_path = path / "events.jsonl"
        self.curves_path = path / "curves.png"
        self.report_path = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self._lock = threading.Lock()
        with ExitStack() as opened:
            opened.enter_context(hold(path))
            if fresh and holds_run(path) and not _is_over_before_it_began(path):
                raise UserError(f"{path} already holds a run: {OTHER_FOLDER}, or go on with that run: --resume {path}")
            self.checkpoints.mkdir(exist_ok=True)
            (path / _MODELS).mkdir(exist_ok=True)
            for part in path.glob(f"**/.*{PART}"):
                remove(part)  # what a kill left half written
            self._rounds = opened.enter_context(closing(RowFile(path / "rounds.csv", RoundRow)))
            self._clients = opened.enter_context(closing(RowFile(path / "clients.csv", ClientRow)))
            self._local = opened.enter_context(closing(RowFile(path / "local.csv", LocalRow)))
            self._opened = opened.pop_all()

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the folder of a new run; it may exist, but hold no run.

        Raises:
            UserError: it cannot be made or written, is no folder, holds another run, or another process uses it.
        """
        return open_new(path, partial(cls, fresh=True))

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open the folder of an earlier run to go on with it. A row that a kill tore in two is dropped.

        Raises:
            UserError: there is no run in it, it cannot be written, or another process uses it.
        """
        try:
            if not holds_run(path):
                raise UserError(f"there is no run to resume in {path}: --resume takes the folder of an earlier run")
            if _kind_of(path) == ONE_SHOT:
                raise UserError(
                    f"{path} holds a one-shot run, which is not resumed: give its command again, with --out"
                )
            return cls(path, fresh=False)
        except OSError as error:
            raise UserError(
                f"cannot write to {path} ({error.strerror}): {remedy(error, 'make it writable')} to resume its run"
            ) from error

    def write_round(self, row: RoundRow) -> None:
        """Append one row to rounds.csv."""
        with self._lock:
            self._rounds.append(row)

    def write_client(self, row: ClientRow) -> None:
        """Append one row to clients.csv; its reason becomes a single line."""
        with self._lock:
            self._clients.append(replace(row, reason=" ".join(row.reason.split())))

    def write_local(self, rows: Iterable[LocalRow]) -> None:
        """Append rows to local.csv."""
        with self._lock:
            self._local.append(*rows)

    def read_local(self) -> list[LocalRow]:
        """The rows of local.csv in the order in which they were written.

        Raises:
            UserError: the file was changed by hand into something else.
        """
        with self._lock:
            return self._local.read()

    def read_rounds(self) -> list[RoundRow]:
        """The rows of rounds.csv in the order in which they were written.

        Raises:
            UserError: the file was changed by hand into something else.
        """
        with self._lock:
            return self._rounds.read()

    def read_clients(self) -> list[ClientRow]:
        """The rows of clients.csv in the order in which they were written.

        Raises:
            UserError: the file was changed by hand into something else.
        """
        with self._lock:
            return self._clients.read()

    def keep_rounds(self, last: Mapping[Entry, int]) -> None:
        """Drop the rows of rounds that will be run again.

        Args:
            last: per contestant the last round that is finished for good. Rows of later rounds go, and all rows of
                contestants that are not in it.
        """
        with self._lock:
            self._rounds.keep(lambda row: row.round <= last.get(row.entry, -1))
            self._clients.keep(lambda row: row.round <= last.get(row.entry, -1))
            self._local.keep(lambda row: row.round <= last.get(row.entry, -1))

    def complete(self) -> dict[Entry, int]:
        """Up to which round the tables hold every row of a contestant, each once; who is not in it has no row of 0.

        Rows are not flushed to the disk, as checkpoints are: after a power cut the last ones may be missing.

        Raises:
            UserError: a file was changed by hand into something else.
        """
        with self._lock:
            rounds, clients, local = self._rounds.read(), self._clients.read(), self._local.read()
        told = {id(rows): Counter((row.entry, row.round) for row in rows) for rows in (rounds, clients, local)}
        last: dict[Entry, int] = {}
        for row in sorted(rounds, key=lambda row: row.round):
            at = row.entry, row.round
            used, asked = row.clients_ok, row.clients_ok + row.clients_rejected
            whole = (told[id(rounds)][at], told[id(clients)][at], told[id(local)][at]) == (1, asked, used)
            if whole and last.get(row.entry, -1) == row.round - 1:
                last[row.entry] = row.round
        return last

    def drop_rounds(self, entry: Entry, first: int) -> None:
        """Drop the rows of a contestant from round `first` on: they are played again."""
        with self._lock:
            self._rounds.keep(lambda row: row.entry != entry or row.round < first)
            self._clients.keep(lambda row: row.entry != entry or row.round < first)
            self._local.keep(lambda row: row.entry != entry or row.round < first)

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Replace run.json.

        Raises:
            ValueError: a number in it is not finite, which JSON has no word for.
        """
        with self._lock:
            write_json(self.path / _RUN, run)

    def read_run(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            UserError: it is missing or broken.
        """
        return read_run_json(self.path)

    def read_config(self) -> RunConfig:
        """What the run compares, so that it can go on: out of run.json.

        Raises:
            UserError: the file is missing or broken, or its configuration is none of this version; or a table holds
                something else than its rows, which is told now and not when the run is over. The folder is closed then.
        """
        try:
            return self._read_config()
        except UserError:
            self.close()
            raise

    def _read_config(self) -> RunConfig:
        from server.run_files import RunFiles

        if _is_over_before_it_began(self.path):
            raise UserError(
                f"there is no run to resume in {self.path}: it was ended before it began; give its command again"
            )
        run = self.read_run()
        if "config" not in run:
            raise UserError(f"{self.path / _RUN} has no config: there is nothing to go on with")
        readers: tuple[Readable, ...] = (RunFiles(self.path), self)
        for table in readers:  # the former also sees what the report could make nothing of
            table.read_rounds(), table.read_clients(), table.read_local()
        try:
            return parse(run["config"])
        except UserError as error:
            raise UserError(f"{self.path / _RUN}: its config cannot be gone on with: {error}") from error

    def model_path(self, entry: Entry) -> Path:
        """Where the contestant's final model is kept."""
        return model_file(self.path, entry)

    def discard(self) -> None:
        """Delete what `create` and `write_run` made, and the folder if nothing else is in it; close.

        Rows are never deleted: a run that came to some can be resumed, whatever ended it.
        """
        self.close()
        if _has_rows(self.path):
            return
        for name in ("rounds.csv", "clients.csv", "local.csv", "run.json", "run.log", "events.jsonl", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path / _MODELS, self.path):
            with suppress(OSError):  # something else is in it
                folder.rmdir()

    def close(self) -> None:
        """Close the files and free the folder for other processes. Again: no effect."""
        with self._lock:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _kind_of(path: Path) -> Any:
    """What run.json says that it is; None: a comparison, or nobody knows."""
    with suppress(OSError, ValueError):
        return read_object((path / _RUN).read_bytes()).get("kind")
    return None


def holds_run(path: Path) -> bool:
    """Whether a run, of whatever kind, was begun in this folder."""
    return any((path / name).exists() for name in (_RUN, "rounds.csv"))


def _is_over_before_it_began(path: Path) -> bool:
    """Whether the run was killed before anything of it was written down: its tables have no row."""
    return not (path / _RUN).exists() and (path / "rounds.csv").exists() and not _has_rows(path)


def _has_rows(path: Path) -> bool:
    """Whether rounds.csv holds a row below its header."""
    rounds = path / "rounds.csv"
    return rounds.exists() and rounds.read_bytes().count(b"\n") > 1


def model_file(folder: Path, entry: Entry) -> Path:
    """Where a contestant's final model is kept. Characters that a file name had better not hold become `_`."""
    names = (re.sub(r"[^\w.+-]+", "_", name) for name in (entry.scenario, entry.strategy))
    return folder / _MODELS / f"{'-'.join(names)}-seed{entry.seed}.keras"


def read_run_json(folder: Path) -> dict[str, Any]:
    """The content of a run's run.json.

    Raises:
        UserError: it is missing or broken.
    """
    try:
        run = read_object((folder / _RUN).read_bytes())
        if run.get("kind") != ONE_SHOT:
            check_run(run)
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{folder / _RUN} cannot be read: {error}") from error
    return run
