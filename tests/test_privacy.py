"""What leaves a client: the gate's view of missing facts, the guard, the noise, and the ledger of what it has cost."""

import json
import logging
import math
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from inline_grid import InlineGrid, mover
from scipy import stats
from test_rounds import Notes, contestant

from client import privacy
from client.budget import Ledger, epsilon, rdp
from client.privacy import Dp, clipped, guard, noised, parse_dp
from server.rounds import Stopped, run_rounds
from server.stop import Stop
from strategies.base import needs_of
from strategies.gate import Expected, screen
from strategies.specify import make_strategy
from task import wire
from task.errors import UserError
from task.shardfile import Header, shard_name, write_shard
from task.update import check_update

ROOT = Path(__file__).resolve().parent.parent
OTHERS = "flwr.serverapp.strategy.FedAvg"
NEEDS = {
    "fedavg": [],
    "fedmedian": [],
    "weighted": ["num_examples"],
    "fednova": ["num_examples", "local_norm"],
    "fednova:mu=0.1": ["num_examples", "local_norm", "local_steps"],
    "scaffold": ["local_norm"],
    OTHERS: ["num_examples"],
}
X = [np.zeros((2, 2), np.float32), np.array(0.5, np.float32)]
FACTS = {
    "client": 3,
    "local_steps": 4,
    "local_norm": 4.0,
    "train_loss": 0.25,
    "seconds": 0.5,
    "cpu_seconds": 0.25,
    "accuracy_before": 0.5,
    "accuracy_after": 0.75,
}
OF_THE_DATA = {"train-loss", "accuracy-before", "accuracy-after"}
DP = {"dp": "clip=0.5,noise=1.0"}


def message(kind: str = "train", **config: Any) -> Message:
    content = RecordDict({wire.ARRAYS: wire.record(X), wire.CONFIG: wire.train_config(config)})
    return Message(content, dst_node_id=100, message_type=kind)


def context(**config: Any) -> Context:
    return Context(run_id=1, node_id=100, node_config=config, state=RecordDict(), run_config={})


def app_of(train=lambda arrays: [a + np.float32(1) for a in arrays], facts=FACTS) -> ClientApp:
    """A guarded app that trains by a plain function."""
    app = ClientApp(mods=[guard])

    @app.train()
    def _train(message, context):
        return wire.reply(message, train(wire.read(message)[0]), 7, facts)

    @app.evaluate()
    def _evaluate(message, context):
        return wire.reply_metrics(message, 0.5, 7, {"client": 3, "accuracy": 0.75, "secret": 1.0})

    @app.query()
    def _query(message, context):
        return Message(RecordDict({"any": ConfigRecord({"text": "as it is"})}), reply_to=message)

    return app


def facts_in(reply: Message) -> set[str]:
    [record] = reply.content.metric_records.values()
    return set(record)


def everything(thing: Any) -> bytes:
    """All bytes that Flower sends of a message and of what is in it."""
    return b"".join([thing.deflate(), *map(everything, (thing.children or {}).values())])


# The gate: what a strategy does not need may be missing ------------------------------------------------------------


@pytest.mark.parametrize("name", NEEDS)
def test_every_train_message_says_what_the_strategy_needs(name):
    assert list(needs_of(make_strategy(name))) == NEEDS[name]
    grid = InlineGrid({0: mover(1), 1: mover(1)})
    run_rounds(contestant(grid, name), X, 0, 2, Notes(), Stop())
    assert [config["needs"] for config in grid.configs] == [NEEDS[name]] * 4


class Without(InlineGrid):
    """Clients whose replies lack a fact."""

    def __init__(self, *lacking: str) -> None:
        super().__init__({0: mover(1, 10, number=0), 1: mover(3, 30, number=1)})
        self.lacking = lacking

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        for name in self.lacking:
            del reply.content[wire.METRICS][name]
        return reply


@pytest.mark.parametrize("name", NEEDS)
def test_a_reply_without_num_examples_counts_where_the_strategy_does_not_need_it(name):
    notes = Notes()
    if "num_examples" in NEEDS[name]:
        with pytest.raises(Stopped, match="no valid update"):
            run_rounds(contestant(Without("num-examples"), name), X, 0, 1, notes, Stop())
        assert {(row.status, row.reason) for row in notes.clients} == {
            ("rejected", "num_examples is missing, which this strategy needs")
        }
    else:
        final = run_rounds(contestant(Without("num-examples"), name), X, 0, 1, notes, Stop())
        assert final[1] == 2.5
        assert {row.status for row in notes.clients} == {"ok"}
    assert {row.num_examples for row in notes.clients} == {None}


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("sent", [0, -3, 2.5])
def test_num_examples_that_is_sent_is_checked_whatever_the_strategy(name, sent):
    notes = Notes()
    grid = InlineGrid({0: mover(1), 1: mover(1, examples=sent)})
    run_rounds(contestant(grid, name), X, 0, 1, notes, Stop())
    (row,) = (row for row in notes.clients if row.status == "rejected")
    assert (row.client, row.num_examples) == (1, None) and row.reason.endswith(f"{sent}")  # nothing of it is believed


def test_the_contract_of_an_update_is_kept_and_the_facts_say_what_was_sent():
    grid = Without("num-examples", "client")
    [reply, _] = grid.send_and_receive(make_strategy("fedavg").configure_train(1, wire.record(X), ConfigRecord(), grid))
    update, facts = wire.read_reply(reply, X)
    check_update(update, X)
    assert (update.num_examples, update.client, facts.num_examples) == (1, None, None)
    reply.content[wire.METRICS][wire.DP_EPSILON] = 2.5
    assert wire.read_reply(reply, X)[1].dp_epsilon == 2.5


@pytest.mark.parametrize("lie", [{"client": [1.0]}, {"client": math.inf}, {"cpu-seconds": [1]}, {"dp-epsilon": [1.0]}])
def test_a_fact_that_is_not_one_number_is_the_clients_fault_alone(lie):
    grid = InlineGrid({0: mover(1)})
    [reply] = grid.send_and_receive(make_strategy("fedavg").configure_train(1, wire.record(X), ConfigRecord(), grid))
    for name, value in lie.items():
        reply.content[wire.METRICS][name] = value
    verdicts = []
    assert list(screen([reply], Expected(X), verdicts.append)) == []
    assert next(iter(lie)).replace("-", "_") in verdicts[0].reason


@pytest.mark.parametrize(
    ("lacking", "metrics"), [((), {"clients": 2, "num-examples": 40}), (("num-examples",), {"clients": 2})]
)
def test_a_shell_sums_up_examples_only_where_all_say_them(lacking, metrics):
    grid, strategy = Without(*lacking), make_strategy("fedavg")
    replies = grid.send_and_receive(strategy.configure_train(1, wire.record(X), ConfigRecord(), grid))
    assert strategy.aggregate_train(1, replies)[1] == MetricRecord(metrics)


# The real client: minimal facts, and no row of its shard in what is sent -------------------------------------------


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A folder with one shard of images, and the images."""
    random = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("shards")
    x = random.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    write_shard(folder / shard_name(0), x, np.arange(24) % 3, Header(client=0, clients=1, num_classes=3, scale=255.0))
    return folder, x


def rows_in(sent: bytes, x: np.ndarray) -> int:
    """How many rows of the images are somewhere in the bytes, as stored or as the model sees them."""
    lines = x.reshape(-1, x.shape[-1])
    scaled = lines.astype(np.float32) / np.float32(255)
    return sum(line.tobytes() in sent for line in [*lines, *scaled])


class OneClient(InlineGrid):
    """A grid whose only node runs an app; keeps all bytes that it sent."""

    def __init__(self, app: ClientApp, **config: Any) -> None:
        super().__init__({0: mover(0)})
        self.app, self.config, self.replies = app, config, list[Message]()

    def _answer(self, message: Message) -> Message:
        self.replies.append(self.app(message, context(**self.config)))
        return self.replies[-1]


def play(name: str, grid: InlineGrid, **config: Any) -> tuple[list[np.ndarray], Notes]:
    """One round of an MLP on 8 x 8 images."""
    chosen, notes = contestant(grid, name), Notes()
    chosen.config.update(config, model="mlp", batch_size=8, **{"num-classes": 3})
    from task.model import build_model, initial_arrays

    return run_rounds(chosen, initial_arrays(build_model("mlp", (8, 8, 1), 3)), 0, 1, notes, Stop()), notes


@pytest.mark.parametrize("name", NEEDS)
def test_minimal_facts_of_the_real_client(name, shard):
    from client.app import app

    folder, x = shard
    node = {"shard": str(folder / shard_name(0)), "partition-id": 0}
    open_grid, shut_grid = OneClient(app, **node), OneClient(app, **node, facts="minimal")
    (final, notes), (same, minimal_notes) = (play(name, grid, measure=True) for grid in (open_grid, shut_grid))
    assert [a.tobytes() for a in final] == [a.tobytes() for a in same]
    [reply], [minimal] = open_grid.replies, shut_grid.replies
    assert set(minimal.content) == {"arrays", "metrics"}
    assert facts_in(minimal) == {need.replace("_", "-") for need in NEEDS[name]}
    assert facts_in(reply) == set(wire.TRAIN_FACTS)
    assert rows_in(everything(minimal), x) == rows_in(everything(reply), x) == 0
    assert b"local-steps" in everything(reply)
    assert (b"local-steps" in everything(minimal)) == ("local_steps" in NEEDS[name])
    assert b"accuracy" not in everything(minimal)
    assert [row.num_examples for row in notes.clients] == [24]
    assert [row.num_examples for row in minimal_notes.clients] == [24 if "num_examples" in NEEDS[name] else None]
    assert [row.status for row in minimal_notes.clients] == ["ok"]


def test_the_search_for_rows_finds_a_leak(shard):
    _, x = shard
    leak = app_of(lambda arrays: [x[0].astype(np.float32) / np.float32(255), x[1]])
    assert rows_in(everything(leak(message(), context())), x) == 16


def test_the_real_client_under_dp_and_minimal_facts(shard, tmp_path):
    from client.app import app

    folder, x = shard
    ledger = tmp_path / "ledger.json"
    node = {"shard": str(folder / shard_name(0)), "partition-id": 0, "facts": "minimal", "dp-ledger": str(ledger), **DP}
    grids = [OneClient(app, **node) for _ in range(2)]
    (one, notes), (other, _) = (play("fedavg", grid, measure=True) for grid in grids)
    assert facts_in(grids[0].replies[0]) == {"dp-epsilon"}
    assert rows_in(everything(grids[0].replies[0]), x) == 0
    assert [row.status for row in notes.clients] == ["ok"]
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert Ledger(ledger).spent(1e-5).updates == 2


# The guard ----------------------------------------------------------------------------------------------------------


def test_by_default_the_documented_facts_leave_and_nothing_else():
    app = app_of(facts={**FACTS, "secret": 1.0, "dp_epsilon": 9.0})
    reply = app(message(), context())
    assert reply.content[wire.METRICS] == wire.metrics(7, FACTS)
    assert [a.tolist() for a in wire.arrays_of(reply.content[wire.ARRAYS])] == [[[1, 1], [1, 1]], 1.5]
    assert facts_in(app(message("evaluate"), context())) == {"client", "loss", "accuracy", "num-examples"}


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"needs": ["num_examples"]}, {"num-examples"}),
        ({"needs": ["local_norm", "num_examples"]}, {"num-examples", "local-norm"}),
        ({"needs": ["local_steps"]}, {"local-steps"}),
        ({"needs": []}, set()),
        ({}, set()),  # a server that does not say what it needs
        (
            {"needs": ["train_loss", "seconds", "secret", "accuracy_before"], "measure": True},
            set(),
        ),  # a server that asks for what is nobody's need
        ({"needs": "num_examples and local_norm"}, set()),
    ],
)
def test_minimal_facts_are_those_that_are_needed(config, left):
    reply = app_of(facts={**FACTS, "secret": 1.0})(message(**config), context(facts="minimal"))
    assert set(reply.content) == {"arrays", "metrics"}
    assert facts_in(reply) == left


def test_minimal_facts_of_an_evaluation_and_a_query_that_passes():
    app, node = app_of(), context(facts="minimal")
    assert app(message("evaluate"), node).content[wire.METRICS] == MetricRecord(
        {"num-examples": 7, "loss": 0.5, "accuracy": 0.75}
    )
    assert app(message("query"), node).content["any"] == ConfigRecord({"text": "as it is"})


SECRET = "patient 4711 has row [0.25, 0.75]"


def _raise_secret(arrays):
    raise ArithmeticError(SECRET)


@pytest.mark.parametrize("node", [{"errors": "kind"}, {**DP, "dp-ledger": "unused"}])
def test_the_text_of_an_error_stays_with_the_client(node, caplog):
    with caplog.at_level(logging.ERROR, "fedarena"):
        reply = app_of(_raise_secret)(message(), context(**node))
    assert reply.has_error()
    assert reply.error.reason == "ArithmeticError: see the log at the client"
    assert b"4711" not in everything(reply)
    assert SECRET in caplog.text
    assert "_raise_secret" in caplog.text  # the traceback


@pytest.mark.parametrize("node", [{}, {"errors": "full"}, {"errors": "full", **DP, "dp-ledger": "unused"}])
def test_full_errors_are_the_runtimes_to_tell(node):
    with pytest.raises(ArithmeticError, match="4711"):
        app_of(_raise_secret)(message(), context(**node))


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_an_error_that_the_app_returns_is_no_way_out(kind, caplog):
    def fails(message, context):
        return Message(Error(code=5, reason=SECRET), reply_to=message)

    reply = guard(message(kind), context(errors="kind"), fails)
    assert reply.error.reason == "Error 5: see the log at the client"
    assert b"4711" not in everything(reply)
    assert SECRET in caplog.text
    assert guard(message(kind), context(), fails).error.reason == SECRET


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"facts": "minimum"}, "facts in the node's configuration must be all or minimal, not 'minimum'"),
        ({"dp": "clip=1", "errors": "full"}, "noise is missing"),
        ({"dp": "", "errors": "full"}, "not understood"),
        ({**DP, "errors": "full"}, "name a file for it as dp-ledger"),
    ],
)
def test_a_wrong_configuration_lets_nothing_out(node, says):
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        guard(message(), context(**node), lambda message, context: pytest.fail("the app ran"))
    assert "\n" not in str(caught.value)


def test_a_misspelt_way_of_errors_is_the_strict_one(caplog):
    reply = app_of(_raise_secret)(message(), context(errors="knid"))
    assert reply.error.reason.startswith("UserError: ")
    assert "must be full or kind, not 'knid'" in caplog.text


# Clipping and noise -------------------------------------------------------------------------------------------------


def test_dp_reply_keeps_the_layout_says_epsilon_and_leaves_out_figures_of_the_data(tmp_path):
    node = context(**DP, **{"dp-ledger": str(tmp_path / "ledger")})
    reply = app_of()(message(), node)
    arrays = wire.arrays_of(reply.content[wire.ARRAYS])
    assert [(a.shape, a.dtype) for a in arrays] == [(x.shape, x.dtype) for x in X]
    assert facts_in(reply) == set(wire.TRAIN_FACTS) - OF_THE_DATA | {"dp-epsilon"}
    assert wire.read_reply(reply, X)[1].dp_epsilon == epsilon({1.0: 1}, 1e-5)
    again = wire.read_reply(app_of()(message(), node), X)
    assert again[1].dp_epsilon == epsilon({1.0: 2}, 1e-5)
    assert not np.array_equal(again[0].arrays[0], arrays[0])


def test_under_dp_no_exact_figure_of_the_data_is_told_by_an_evaluation():
    app = ClientApp(mods=[guard])
    app.evaluate()(lambda message, context: pytest.fail("the app ran"))
    reply = app(message("evaluate"), context(**DP, **{"dp-ledger": "unused"}))
    assert "answers no evaluations" in reply.error.reason


def norm(arrays) -> float:
    return math.sqrt(math.fsum(float(v) ** 2 for a in arrays for v in np.asarray(a, np.float64).ravel()))


values = st.floats(-1e6, 1e6, width=32)


@given(st.lists(values, min_size=1, max_size=40), values, st.floats(1e-6, 1e6))
def test_an_update_is_clipped_over_all_arrays_together(vector, scalar, clip):
    new = [np.array(vector, np.float32), np.array(scalar, np.float32)]
    old = [np.zeros_like(a) for a in new]
    moves = clipped(old, new, clip)
    assert [m.shape for m in moves] == [a.shape for a in new]
    assert norm(moves) <= clip
    if norm(new) < clip * 0.999:
        assert all(np.array_equal(m, a) for m, a in zip(moves, new, strict=True))
    elif norm(new) > clip:
        assert norm(moves) == pytest.approx(clip, rel=1e-6)
        factor = clip / norm(new)
        for m, a in zip(moves, new, strict=True):
            np.testing.assert_allclose(m, a * factor, rtol=1e-6, atol=clip * 1e-6)


def test_the_difference_to_what_was_received_is_clipped_and_not_the_model():
    old = [np.full(100, 50, np.float32)]
    [move] = clipped(old, [old[0] + np.float32(2)], 0.5)
    np.testing.assert_allclose(move, 0.05, rtol=1e-6)


def test_noise_has_the_standard_deviation_that_was_asked_for():
    """A fixed generator, so the bounds (5 standard errors) hold or do not for good."""
    n, dp = 1_000_001, Dp(clip=0.5, noise=2.0)
    old = [np.zeros(n, np.float32), np.array(3, np.float32)]
    new = [np.full(n, 1.0, np.float32), np.array(3, np.float32)]
    sent, _ = noised(old, new, dp, np.random.default_rng(1).bytes)
    noise = sent.astype(np.float64) - 0.5 / math.sqrt(n)  # less the clipped update
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.std() - 1) < 5 / math.sqrt(2 * n)
    assert abs((noise**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    pairs = noise[: n // 2] * noise[n // 2 + 1 :]  # the two values of a pair
    assert abs(pairs.mean()) < 5 / math.sqrt(n // 2)


def test_a_single_value_gets_noise_of_the_same_size():
    random, x = np.random.default_rng(2), [np.array(1, np.float32)]
    sent = [noised(x, x, Dp(0.5, 2.0), random.bytes)[0] for _ in range(4000)]
    assert {(a.shape, a.dtype) for a in sent} == {((), np.dtype(np.float32))}
    assert abs(np.std(sent) - 1) < 5 / math.sqrt(2 * len(sent))
    assert abs(np.mean(sent) - 1) < 5 / math.sqrt(len(sent))


def test_noise_is_fresh_whatever_was_seeded():
    x, sent = [np.zeros(50, np.float32)], []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002 - as Keras does
        sent.append(noised(x, x, Dp(1.0, 1.0))[0])
    assert len(np.unique(np.concatenate(sent))) == 100


def test_noise_asks_for_eight_bytes_a_value_from_the_operating_system():
    asked = []

    def entropy(count):
        asked.append(count)
        return os.urandom(count)

    noised(X, X, Dp(1.0, 1.0), entropy)
    assert asked == [32, 16]
    assert noised.__defaults__ == (os.urandom,)


def test_counters_come_back_as_they_were_and_do_not_use_up_the_clip():
    old = [np.array([5, 6], np.int64), np.zeros(4, np.float32)]
    new = [np.array([1000, 7], np.int64), np.full(4, 0.1, np.float32)]
    assert clipped(old, new, 0.5)[1].tolist() == new[1].astype(np.float64).tolist()
    counter, _ = noised(old, new, Dp(0.5, 1.0))
    assert counter.dtype == np.int64
    assert counter.tolist() == [5, 6]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_are_kept(dtype):
    x = [np.ones((2, 3), dtype), np.ones((0, 4), dtype), np.array(1, dtype)]
    assert [(a.dtype, a.shape) for a in noised(x, x, Dp(1.0, 1.0))] == [(a.dtype, a.shape) for a in x]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_training_that_diverged_sends_noise_alone(bad, caplog):
    old = [np.ones(3, np.float32), np.ones(2, np.float32)]
    new = [np.array([1, bad, 9], np.float32), np.full(2, 9, np.float32)]
    assert [m.tolist() for m in clipped(old, new, 0.5)] == [[0, 0, 0], [0, 0]]
    assert all(np.isfinite(a).all() for a in noised(old, new, Dp(0.5, 1.0)))
    assert "not finite" in caplog.text


def test_an_update_whose_norm_is_beyond_numbers_is_noise_alone():
    old = [np.zeros(3), np.zeros(3)]
    assert norm(clipped(old, [np.full(3, 1e154), np.full(3, 1e154)], 0.5)) == 0


@pytest.mark.parametrize("new", [[X[0]], [*X, X[0]], [X[0], X[0]], [X[0].astype(np.float64), X[1]]])
def test_other_arrays_than_the_received_ones_are_refused(new):
    with pytest.raises(ValueError, match="not of the shapes and dtypes"):
        noised(X, new, Dp(1.0, 1.0))


def test_parse_dp():
    assert parse_dp("clip=0.5,noise=1.0,delta=1e-6") == Dp(0.5, 1.0, 1e-6)
    assert parse_dp(" noise = 2 , clip = 3 ") == Dp(3.0, 2.0, 1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not understood"),
        ("on", "'on' is not understood"),
        ("clip=1", "noise is missing"),
        ("noise=1", "clip is missing"),
        ("clip=1,noise=1,epsilon=3", "'epsilon=3' is not understood"),
        ("clip=1,clip=2,noise=1", "'clip=2' is not understood"),
        ("clip=one,noise=1", "clip must be a number, not 'one'"),
        ("clip=1,noise=0", "noise must be a finite number > 0, not 0"),
        ("clip=-1,noise=1", "clip must be a finite number > 0, not -1"),
        ("clip=inf,noise=1", "clip must be a finite number > 0"),
        ("clip=1,noise=nan", "noise must be a finite number > 0"),
        ("clip=1,noise=1,delta=0", "delta must be a finite number > 0"),
        ("clip=1,noise=1,delta=1", "delta must be below 1"),
    ],
)
def test_a_dp_that_does_not_do_is_one_line_with_the_way_to_write_it(text, says):
    with pytest.raises(UserError) as caught:
        parse_dp(text)
    assert says in str(caught.value)
    assert "such as clip=0.5,noise=1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


# The budget ---------------------------------------------------------------------------------------------------------


@given(st.floats(1.001, 1e4), st.floats(0.1, 100), st.floats(0.01, 10), st.integers(1, 1000))
def test_renyi_privacy_is_the_closed_form_and_linear_in_the_updates(order, noise, clip, updates):
    sensitivity, sigma = 2 * clip, noise * clip
    assert rdp(order, noise) == pytest.approx(order * sensitivity**2 / (2 * sigma**2))
    assert rdp(order, noise, updates) == pytest.approx(updates * rdp(order, noise))


@pytest.mark.parametrize(
    ("updates", "delta", "flowers"),
    [
        ({1.0: 1}, 1e-5, 10.72484392067912),
        ({1.0: 10}, 1e-5, 48.75452306384423),
        ({4.0: 100}, 1e-6, 37.42185564692309),
        ({50.0: 1000}, 1e-5, 6.20806051887661),
        ({10.0: 1}, 1e-5, 0.7943157426217768),
        ({100.0: 1}, 1e-5, 0.06573450902443329),
        ({4.0: 3, 10.0: 20}, 1e-5, 6.093995374714362),
    ],
)
def test_epsilon_is_that_of_flowers_accountant(updates, delta, flowers):
    """The figures: `flwr.supercore.privacy_accounting.rdp_accountant` of flwr 1.41 over dp-accounting 0.6.0.

    Without amplification, at our orders, and at the noise multiplier noise / 2: sigma over the sensitivity 2 * clip.
    """
    assert epsilon(updates, delta) == pytest.approx(flowers, rel=1e-12)


@given(st.floats(0.3, 200), st.integers(1, 200), st.floats(1e-9, 1e-2))
def test_epsilon_is_never_below_the_exact_one(noise, updates, delta):
    """Balle and Wang 2018 (arXiv:1805.06530, theorem 8): the exact delta of k Gaussian releases at an epsilon."""
    mu, eps = 2 * math.sqrt(updates) / noise, epsilon({noise: updates}, delta)
    exact = stats.norm.cdf(mu / 2 - eps / mu) - math.exp(eps + stats.norm.logcdf(-mu / 2 - eps / mu))
    assert exact <= delta * (1 + 1e-9)


def test_epsilon_at_its_ends():
    assert epsilon({}, 1e-5) == 0
    assert epsilon({1e-200: 1}, 1e-5) == math.inf
    assert epsilon({1.0: 5}, 1e-5) > epsilon({1.0: 4}, 1e-5) > epsilon({1.5: 4}, 1e-5)
    assert epsilon({1.0: 5}, 1e-9) > epsilon({1.0: 5}, 1e-5)


def test_a_ledger_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "hospital.identity.dp-ledger"
    script = f"""
import os, signal
from pathlib import Path
from client.budget import Ledger
for noise in (1.0, 2.0, 1.0):
    Ledger(Path({str(path)!r})).record(noise, 1e-5)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    spent = Ledger(path).record(1.0, 1e-5)
    assert spent == (4, epsilon({1.0: 3, 2.0: 1}, 1e-5), 1e-5)
    assert Ledger(path).spent(1e-5) == spent
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_ledger_lies_beside_the_identity(tmp_path):
    app_of()(message(), context(**DP, identity=str(tmp_path / "a.identity")))
    assert Ledger(tmp_path / "a.identity.dp-ledger").spent(1e-5).updates == 1


def test_a_crash_between_counting_and_sending_over_counts(tmp_path, monkeypatch):
    path = tmp_path / "ledger"
    node = context(**DP, **{"dp-ledger": str(path)})

    def crash(*_):
        raise SystemExit("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(privacy, "_facts", crash)
        with pytest.raises(SystemExit):
            app_of()(message(), node)
    assert Ledger(path).spent(1e-5).updates == 1
    assert wire.read_reply(app_of()(message(), node), X)[1].dp_epsilon == epsilon({1.0: 2}, 1e-5)


def test_the_count_and_its_name_are_on_disk_before_the_reply_is_made(tmp_path, monkeypatch):
    path, happened = tmp_path / "ledger", []
    sync, facts = os.fsync, privacy._facts

    def synced(descriptor):
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def made(*given):
        happened.append("reply")
        return facts(*given)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(privacy, "_facts", made)
    app_of()(message(), context(**DP, **{"dp-ledger": str(path)}))
    assert happened == ["file", "folder", "reply"]


def test_failed_training_costs_nothing(tmp_path):
    path = tmp_path / "ledger"
    assert app_of(_raise_secret)(message(), context(**DP, **{"dp-ledger": str(path)})).has_error()
    assert Ledger(path).spent(1e-5) == (0, 0.0, 1e-5)


@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_what_cannot_be_counted_does_not_leave(broken, tmp_path, monkeypatch, caplog):
    path = tmp_path / "ledger"
    Ledger(path).record(1.0, 1e-5)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        reply = app_of()(message(), context(**DP, **{"dp-ledger": str(path)}))
    assert reply.has_error()
    assert "No space left on device), so nothing leaves" in caplog.text
    assert Ledger(path).spent(1e-5).updates == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": 2, "spent": []}',
        '{"format": 1, "spent": [{"noise": 0, "updates": 1}]}',
        '{"format": 1, "spent": [{"noise": 1.0, "updates": -1}]}',
        '{"format": 1, "spent": [{"noise": 1.0}]}',
    ],
)
def test_a_damaged_ledger_is_not_taken_for_an_empty_one(content, tmp_path):
    path = tmp_path / "ledger"
    path.write_text(content)
    for use in (lambda: Ledger(path).record(1.0, 1e-5), lambda: Ledger(path).spent(1e-5)):
        with pytest.raises(UserError, match="restore it from a backup") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert path.read_text() == content


def test_many_writers_lose_no_count(tmp_path):
    path = tmp_path / "ledger"
    threads = [threading.Thread(target=lambda: [Ledger(path).record(1.0, 1e-5) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Ledger(path).spent(1e-5).updates == 40
    assert json.loads(path.read_text()) == {"format": 1, "spent": [{"noise": 1.0, "updates": 40}]}
