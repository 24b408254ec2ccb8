"""Whatever a reply says, the folder of its run can be read, gone on with and reported."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_grid import InlineGrid, mover
from mutants import mutated, reply_target
from test_fuzz_files import look
from test_rounds import contestant

from server.contest import Contest
from server.export import write_parquet
from server.record import RunRecord
from server.recorder import Recorder
from server.report.__main__ import main as report
from server.results import ClientRow, Entry, RunFolder
from server.rounds import Terms
from server.run_files import RunFiles
from server.screen_plain import Plain
from server.starts import find_starts
from server.stop import Stop
from task import wire
from task.config import RunConfig
from task.limits import LIMITS

X = [np.zeros((2, 3)), np.zeros(4, np.float32)]  # float64 as well: what it can hold, a square cannot
CLIENTS = 3

Change = Callable[[Message], Message | None]


class Liars(InlineGrid):
    """Three clients, whose replies are changed by the next of each one's changes, while there are any."""

    def __init__(self, changes: Mapping[int, Sequence[Change]]) -> None:
        super().__init__({k: mover(k + 1.0, 10, number=k) for k in range(CLIENTS)})
        self.left = {100 + client: list(some) for client, some in changes.items()}

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        if left := self.left.get(message.metadata.dst_node_id):
            return left.pop(0)(reply) or reply
        return reply


class Terminal:
    """Takes what the user sees: printable lines."""

    def write(self, text: str) -> int:
        assert text.replace("\n", "").isprintable(), text
        return len(text)

    def flush(self) -> None: ...


def play(
    path: Path,
    strategies: Sequence[str],
    rounds: int,
    changes: Mapping[int, Sequence[Change]],
    then: Callable[[RunRecord, RunFolder, Contest], Any],
    *,
    resume: bool = False,
) -> Any:
    """Play in a folder as real runs do, with neither Ray nor a model, and return what `then` makes of it."""
    folder = RunFolder.resume(path) if resume else RunFolder.create(path)
    with folder, closing(Plain(Terminal())) as screen:
        config = folder.read_config() if resume else RunConfig(strategies=tuple(strategies), rounds=rounds, clients=3)
        record = RunRecord(folder, config, {"shards": {"iid/seed0": "ab"}}, ["play"], resumed=resume)
        record.begin()
        contestants = [
            replace(contestant(Liars(changes), name), terms=Terms(tries=2), evaluate=lambda arrays: (0.5, 1e200))
            for name in config.strategies
        ]
        entries = [one.entry for one in contestants]
        recorder = Recorder(folder, record.checkpoints, screen, entries, 0.0)
        starts = find_starts(entries, {0: X}, folder, recorder)
        contest = Contest(contestants, starts, config.rounds, recorder, Stop())
        contest.run()
        recorder.write_timing()
        record.privacy(recorder.epsilons)
        return then(record, folder, contest)


def finished(record: RunRecord, _: RunFolder, contest: Contest) -> int:
    return record.finish(contest.endings, lambda arrays, path: None, interrupted=False)


def says(**facts: Any) -> Change:
    return telling({name.replace("_", "-"): value for name, value in facts.items()})


def moves(*values: float) -> Change:
    def change(reply: Message) -> None:
        with np.errstate(over="ignore"):
            arrays = [np.full_like(x, value) for x, value in zip(X, values, strict=True)]
        reply.content[wire.ARRAYS] = wire.record(arrays)

    return change


def telling(facts: Mapping[str, Any]) -> Change:
    return lambda reply: reply.content.metric_records[wire.METRICS].update(facts)


def failing(code: int, reason: str) -> Change:
    return lambda reply: Message(Error(code=code, reason=reason), reply_to=reply_target(reply))


def mutating(seed: int) -> Change:
    def change(reply: Message) -> Message | None:
        mutant = mutated(reply, np.random.default_rng(seed))
        # Which message it answers is the link's word, not the client's: the round would wait for its answer.
        same = mutant.metadata.reply_to_message_id == reply.metadata.reply_to_message_id
        return mutant if same else None

    return change


def claims(row: ClientRow) -> set[Any]:
    return {row.num_examples, row.local_steps, row.local_norm, row.train_loss, row.seconds}


REFUSED: list[dict[str, Any]] = [
    *({"num_examples": -5}, {"num_examples": 2**60}, {"num_examples": 2.0}, {"local_steps": -3}, {"local_steps": 0}),
    *({"local_norm": 1e300}, {"local_norm": math.nan}, {"train_loss": 1e200}, {"train_loss": [0.5]}),
    *({"seconds": 1e13}, {"cpu_seconds": -1}, {"accuracy_before": 1.5}, {"dp_epsilon": math.inf}, {"client": 2**31}),
]
ACCEPTED: list[dict[str, Any]] = [
    {"num_examples": 2**53, "local_steps": 2**53, "local_norm": 1e100, "train_loss": 1e100, "seconds": 1e12},
    {"num_examples": 1, "local_steps": 1, "local_norm": 5e-324, "train_loss": math.nan, "seconds": 0, "unknown": 1},
    {"train_loss": -math.inf, "cpu_seconds": 1e12, "dp_epsilon": 1e100, "accuracy_before": 0, "accuracy_after": 1.0},
]


def test_a_number_that_no_table_can_hold_costs_its_client_the_round_and_nobody_the_results(tmp_path: Path):
    out = tmp_path / "out"
    lies = [says(**facts) for facts in (*REFUSED, *ACCEPTED)]
    rounds = len(lies) + 1
    assert play(out, ["fedavg"], rounds, {1: [*lies, moves(1e300, 0)]}, finished) == 0
    run, files = RunFiles(out).read_run(), RunFiles(out)
    rows = [row for row in files.read_clients() if row.client == 1]
    assert [row.status for row in rows] == ["rejected"] * len(REFUSED) + ["ok"] * (len(ACCEPTED) + 1)
    for row, lie in zip(rows, REFUSED, strict=False):
        assert row.reason.startswith(next(iter(lie))) and claims(row) == {None}
    for row, facts in zip(rows[len(REFUSED) :], ACCEPTED, strict=False):
        told = {name: value for name, value in facts.items() if hasattr(row, name)}
        assert repr({name: float(getattr(row, name)) for name in told}) == repr({n: float(v) for n, v in told.items()})
    assert {row.test_loss for row in files.read_rounds()} == {math.inf}
    assert [row.update_norm for row in files.read_local() if row.client == 1][-1] == math.inf
    assert run["status"] == "finished" and run["dp_epsilon"] == {"1": 1e100}
    timing = json.loads((out / "timing.json").read_bytes(), parse_constant=pytest.fail)
    assert timing["client_seconds"] == pytest.approx(1e12) and timing["client_cpu_seconds"] == 1e12
    (out / "report.html").unlink()
    assert report([str(out)]) == 0 and (out / "report.html").exists()
    assert play(out, [], 0, {}, finished, resume=True) == 0


ENDS = sorted({end for limits in LIMITS.values() for end in (limits.low, limits.high)})
numbers = (
    st.sampled_from([*map(int, ENDS[1:-1]), *(math.nextafter(end, way) for end in ENDS for way in (-1e200, 1e200))])
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
)
values = numbers | st.lists(st.integers(0, 9)) | st.lists(st.floats())
facts = st.dictionaries(st.sampled_from([*wire.TRAIN_FACTS, wire.DP_EPSILON]) | st.text(max_size=9), values, max_size=3)
texts = st.text(st.characters(codec="utf-8"), max_size=400)


changes = st.one_of(
    st.builds(telling, facts),
    st.builds(failing, st.integers(0, 2**31 - 1), texts),
    st.builds(moves, st.floats(), st.floats(width=32)),
    st.builds(mutating, st.integers(0, 2**32)),
)


def looked_at(record: RunRecord, folder: RunFolder, contest: Contest) -> dict[Entry, int]:
    """Everything that is made of a run when it is over, but for pictures; the last round of each contestant."""
    folder.write_run({**record.folder.read_run(), "status": "finished", "exit_status": 0})
    look(folder.path)
    write_parquet(folder)
    json.loads((folder.path / "timing.json").read_bytes(), parse_constant=pytest.fail)
    assert not [one.ended for one in contest.endings.values() if one.ended.startswith("the strategy failed")]
    return {entry: ending.round for entry, ending in contest.endings.items()}


@settings(max_examples=30)
@given(
    st.sampled_from(["fedavg", "weighted", "fednova", "scaffold", "fedadam", "krum", "flwr.serverapp.strategy.FedAvg"]),
    st.lists(changes, min_size=1, max_size=5),
    st.lists(changes, max_size=2),
)
def test_any_reply_leaves_a_folder_that_can_be_read_gone_on_with_and_reported(
    strategy: str, first: list[Change], second: list[Change]
):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        last = play(out, [strategy], 4, {1: first, 2: second}, looked_at)
        for row in RunFiles(out).read_clients():
            assert (row.reason == "") == (row.status == "ok")
            assert row.reason.isprintable() and len(row.reason) <= 300
            assert row.status == "ok" or claims(row) == {None}
        with RunFolder.resume(out) as again:
            assert again.read_config().rounds == 4
            assert again.complete() == last
