"""The gate: no bad update passes, no good one is stopped, whatever clients send."""

import copy
import math
import random
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from hypothesis import given
from hypothesis import strategies as st
from inline_grid import InlineGrid, mover
from mutants import mutated
from test_rounds import Notes, contestant

from server.rounds import Contestant, Stopped, Terms, run_rounds
from server.stop import Stop
from strategies import REGISTRY
from strategies.gate import Expected, Verdict, screen
from task import wire
from task.npy import read_npy
from task.update import Arrays

SEED = 20261126
REPLIES = 10_000  # mutated ones, over all strategies
CLIENTS, DECLARED, BOUND = 5, 10, 1e6
X = [np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.float32(0).reshape(())]
ALL = [*REGISTRY, "flwr.serverapp.strategy.FedAdam", "flwr.serverapp.strategy.FedMedian"]
EACH = -(-REPLIES // len(ALL))


class Hostile(InlineGrid):
    """Clients that move by their number, and half of whose replies are mutated on their way."""

    def __init__(self, seed: int) -> None:
        super().__init__({k: mover(k + 1.0, DECLARED, number=k) for k in range(CLIENTS)})
        self.random = np.random.default_rng(seed)
        random.seed(seed)  # Flower asks its nodes in an order that it draws
        self.mutations = 0
        self.strays: list[Message] = []
        self.clean: set[int] = set()  # nodes whose last reply is as they sent it

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        node = reply.metadata.src_node_id
        self.clean.add(node)
        if self.random.random() < 0.5:
            self.mutations += 1
            mutant = mutated(reply, self.random)
            if mutant.metadata.reply_to_message_id != reply.metadata.reply_to_message_id:
                self.strays.append(mutant)  # it answers something else, and the client's own reply comes, too
                return reply
            self.clean.discard(node)
            return mutant
        return reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        came = [*self.strays, *super().pull_messages(message_ids)]
        self.strays.clear()
        if came and self.random.random() < 0.1:
            came.append(copy.deepcopy(came[self.random.integers(len(came))]))  # a second reply
        return came


def assert_good(verdict: Verdict) -> None:
    """What an update that was let through has to be; not by the gate's own checks."""
    update = verdict.update
    assert update is not None and type(update.num_examples) is int
    assert 0 < update.num_examples <= DECLARED
    assert update.client is None or update.client == verdict.node_id - 100
    for number in (update.local_norm, update.local_steps):
        assert number is None or (0 < number < math.inf)
    assert [(a.shape, a.dtype) for a in update.arrays] == [(x.shape, x.dtype) for x in X]
    for array in update.arrays:
        assert all(math.isfinite(value) for value in array.reshape(-1).tolist())


class Checked(Notes):
    """A journal that checks everything that it is told."""

    def __init__(self, grid: Hostile) -> None:
        super().__init__()
        self.grid, self.told = grid, dict[int, str]()

    def client(self, row: Any, verdict: Verdict) -> None:
        assert verdict.node_id not in self.told, "one word on each client"
        self.told[verdict.node_id] = verdict.status
        assert "\n" not in row.reason and (verdict.status == "ok") == (row.reason == "")
        if verdict.status == "ok":
            assert_good(verdict)
        else:
            assert verdict.node_id not in self.grid.clean, row.reason

    def round(self, row: Any, arrays: Arrays, memory: Any, local: Any) -> None:
        assert all(np.isfinite(array).all() for array in arrays)
        assert all(np.isfinite(array).all() for some in memory.values() for array in some)
        if row.round:
            assert len(self.told) == CLIENTS == row.clients_ok + row.clients_rejected
        self.told.clear()
        self.rounds.append(row)

    def again(self, entry: Any, server_round: int, reason: str) -> None:
        assert "valid update" in reason
        self.told.clear()

    def back(self, entry: Any, server_round: int, reason: str) -> None:
        return None  # it keeps no models


def of(grid: Hostile, name: str, **terms: Any) -> Contestant:
    examples = dict.fromkeys(range(CLIENTS), DECLARED)
    one = replace(contestant(grid, name), terms=Terms(tries=3, **terms), examples=examples)
    return replace(one, evaluate=lambda arrays: (0.0, 0.0))


@pytest.mark.parametrize("name", ALL)
def test_mutated_replies_never_crash_a_run_nor_spoil_a_model(name: str):
    grid = Hostile(SEED + ALL.index(name))
    journal, one, played = Checked(grid), of(grid, name), 0
    while grid.mutations < EACH:
        journal.told.clear()
        try:
            run_rounds(one, X, played + 1, played + 20, journal, Stop())
        except Stopped as stopped:  # three tries in a row
            assert "valid update" in str(stopped), stopped
        played += 20
        one.remember({})  # extreme values do not stay for ever
    assert grid.mutations >= EACH and len(journal.rounds) > 50


@pytest.mark.parametrize("name", REGISTRY)
def test_a_strategy_in_somebody_elses_server_is_as_safe(name: str):
    """As Flower's own `start` calls it: no word on who was asked, nor on who has how much."""
    grid, strategy = Hostile(SEED), REGISTRY[name]()

    def check(verdict: Verdict) -> None:
        if verdict.status == "ok":
            assert verdict.update is not None
            assert all(np.isfinite(array).all() for array in verdict.update.arrays)

    strategy.report = check
    made = 0
    for number in range(1, 61):
        if number % 10 == 0:
            strategy.memory = {}  # extreme values do not stay for ever
        messages = strategy.configure_train(number, wire.record(X), ConfigRecord(), grid)
        result, _ = strategy.aggregate_train(number, grid.send_and_receive(messages))
        if result is not None:
            made += 1
            assert all(np.isfinite(array).all() for array in wire.arrays_of(result))
        assert all(np.isfinite(array).all() for some in strategy.memory.values() for array in some)
    assert made > 30


# -- one thing at a time


def replies() -> tuple[list[Message], dict[str, int]]:
    """Three good replies, and who was asked what."""
    grid = InlineGrid({k: mover(k + 1.0, DECLARED, number=k) for k in range(3)})
    messages = list(REGISTRY["fedavg"]().configure_train(1, wire.record(X), ConfigRecord(), grid))
    ids = list(grid.push_messages(messages))
    asked = {one: message.metadata.dst_node_id for one, message in zip(ids, messages, strict=True)}
    return sorted(grid.pull_messages(ids), key=lambda reply: reply.metadata.src_node_id), asked


def says(**facts: Any) -> Callable[[Message], None]:
    named = {name.replace("_", "-"): value for name, value in facts.items()}
    return lambda reply: reply.content.metric_records[wire.METRICS].update(named)


def moved(by: float) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content[wire.ARRAYS] = wire.record([np.full_like(x, by) for x in X])

    return change


def announces(text: str) -> Callable[[Message], None]:
    """The first array's header says something else than what follows."""

    def change(reply: Message) -> None:
        array = reply.content.array_records[wire.ARRAYS]["0"]
        array.data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(24)

    return change


def grown(reply: Message) -> None:
    reply.content.array_records[wire.ARRAYS]["0"].data += bytes(10**6)


def from_node(node: int) -> Callable[[Message], None]:
    return lambda reply: reply.metadata.__dict__.update(_src_node_id=node)


TERABYTES = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
PICKLED = "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (says(num_examples=DECLARED + 1), "num_examples is 11, and the client has declared 10"),
        (says(num_examples=2.0), "num_examples must be an integer, not float 2.0"),
        (says(client=2), "it says that it is client 2, and it is client 1"),
        (says(local_norm=0.0), "local_norm must be > 0, not 0.0"),
        (says(local_steps=0), "local_steps must be > 0, not 0"),
        (says(seconds=float("nan")), "seconds must be in 0..1000000000000, not nan"),
        (says(dp_epsilon=float("inf")), "dp_epsilon must be in 0..1e+100, not inf"),
        (says(accuracy_after=1.5), "accuracy_after must be in 0..1, not 1.5"),
        (moved(2e6), "the norm of its update is 6.63325e+06, the bound 1e+06"),
        (announces(TERABYTES), "array 0 has shape (1000000000000,) where the model has (2, 3)"),
        (announces(PICKLED), "array 0 cannot be read: its dtype object has no values that could be sent"),
        (
            announces("__import__('os').abort()"),
            "array 0 cannot be read: it is not what np.save writes of a plain array",
        ),
        (grown, "array 0 has 1000024 bytes of values where the model has 24"),
        (from_node(102), "it comes from node 102, and node 101 was asked"),
        (from_node(7), "it comes from node 7, and node 101 was asked"),
    ],
)
def test_one_bad_reply_is_told_by_client_and_reason_and_the_others_count(change, reason):
    came, asked = replies()
    change(came[1])
    verdicts: list[Verdict] = []
    expected = Expected(X, ("num_examples",), asked, {100 + k: k for k in range(3)}, dict.fromkeys(range(3), 10), BOUND)
    passed = [update.client for _, update in screen(came, expected, verdicts.append)]
    assert passed == [0, 2]
    assert [(v.node_id, v.status) for v in verdicts] == [(100, "ok"), (101, "rejected"), (102, "ok")]
    assert verdicts[1].reason == reason


def test_a_header_is_refused_before_memory_is_taken():
    came, _ = replies()
    announces(TERABYTES)(came[0])
    grown(came[1])
    tracemalloc.start()
    try:
        assert len(list(screen(came, Expected(X)))) == 1
        assert tracemalloc.get_traced_memory()[1] < 500_000  # less than a copy of what the second one sent
    finally:
        tracemalloc.stop()


def test_a_second_reply_and_one_of_another_round_count_for_nobody():
    came, asked = replies()
    old, _ = replies()
    for number, message in enumerate(old):
        message.metadata.__dict__["_reply_to_message_id"] = f"0-{number}"
    verdicts: list[Verdict] = []
    passed = list(screen([old[0], came[0], came[0], came[1]], Expected(X, asked=asked), verdicts.append))
    assert [message for message, _ in passed] == [came[0], came[1]]
    assert [(v.status, v.stray, v.reason) for v in verdicts] == [
        ("rejected", True, "it answers no message of this round"),
        ("ok", False, ""),
        ("rejected", True, "a second reply in one round"),
        ("ok", False, ""),
    ]


def test_replies_of_an_earlier_round_are_not_used_in_somebody_elses_server():
    grid, strategy = InlineGrid({0: mover(1), 1: mover(3)}), REGISTRY["fedavg"]()
    first = grid.send_and_receive(strategy.configure_train(1, wire.record(X), ConfigRecord(), grid))
    list(grid.push_messages(strategy.configure_train(2, wire.record(X), ConfigRecord(), grid)))
    assert strategy.aggregate_train(2, first) == (None, None)


@pytest.mark.parametrize("name", ["fedavgm:learning_rate=1e39", "fedadam:learning_rate=1e39", "scaffold", "fednova"])
def test_a_result_that_is_not_finite_makes_no_round_and_no_memory(name: str):
    """Both updates are finite, and what they make of the model is not."""
    far = lambda arrays, config: ([np.full_like(a, 3e38) for a in arrays], 10, {"local_norm": 1e-30})  # noqa: E731
    journal = Notes()
    one = replace(contestant(InlineGrid({0: far, 1: mover(1)}), name), terms=Terms(tries=2))
    with pytest.raises(Stopped, match="round 1 gave no finite model from the 2 valid updates of 2 clients"):
        run_rounds(one, X, 0, 3, journal, Stop())
    assert [row.round for row in journal.rounds] == [0]
    assert one.memory == {}


def test_below_the_quorum_a_round_is_void_and_played_again():
    """One of three clients goes too far, or claims too much, in the first try of round 2."""
    tries: list[int] = []

    def wild(arrays: Arrays, config: dict[str, Any]) -> Any:
        tries.append(config["server-round"])
        far, much = tries == [1, 2], tries == [1, 2, 2]
        return mover(50.0 if far else 1.0, 99 if much else DECLARED, number=2)(arrays, config)

    journal = Notes()
    again: list[str] = []
    journal.again = lambda entry, number, reason: again.append(reason)  # type: ignore[method-assign]
    grid = InlineGrid({0: mover(1, DECLARED, number=0), 1: mover(1, DECLARED, number=1), 2: wild})
    terms = Terms(quorum=3, tries=3, max_norm=30.0)
    one = replace(contestant(grid), terms=terms, examples=dict.fromkeys(range(3), DECLARED))
    final = run_rounds(one, X, 0, 3, journal, Stop())
    assert tries == [1, 2, 2, 2, 3] and final[0][0, 0] == 3
    told = "round 2 brought 2 valid updates from 3 clients, 3 are needed; "
    assert again == [f"{told}2 more tries", f"{told}1 more try"]
    reasons = [row.reason for row in journal.clients if row.status == "rejected"]
    assert reasons == [
        "the norm of its update is 165.831, the bound 30",
        "num_examples is 99, and the client has declared 10",
    ]


@pytest.mark.parametrize("name", ["flwr.serverapp.strategy.FedAvg", "flwr.serverapp.strategy.Krum"])
def test_what_only_some_clients_say_is_no_trouble_for_strategies_of_others(name: str):
    """Flower's own end the run over a reply whose metrics have other names than those of the others."""
    journal = Notes()
    grid = InlineGrid({0: mover(1, number=0), 1: mover(3, norm=None), 2: mover(2)})
    final = run_rounds(contestant(grid, name), X, 0, 2, journal, Stop())
    assert {row.status for row in journal.clients} == {"ok"} and final[0][0, 0] > 0


@given(
    st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "i8", "u4", "?", "c8", "M8[s]"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_arrays_are_read_as_numpy_reads_them(kind: str, shape: list[int], fortran: bool, version: tuple[int, int]):
    size = int(np.prod(shape))
    array = np.arange(size).astype(kind).reshape(shape)
    stream = BytesIO()
    np.lib.format.write_array(
        stream, np.asfortranarray(array) if fortran and shape else array, version, allow_pickle=False
    )
    read = read_npy(stream.getvalue())
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert read.flags.writeable and read.flags.c_contiguous and read.flags.aligned
