"""Our strategies inside Flower: the gate, its own `start`, strategies of others, and how the user names them."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, Strategy
from inline_grid import InlineGrid, mover

from strategies import REGISTRY, Update, aggregate
from strategies.base import conform
from strategies.gate import Expected, screen
from strategies.memory import MemoryShell
from strategies.specify import make_strategy
from task import wire
from task.errors import UserError

X = [np.ones((2, 3), np.float32), np.array(0.5, np.float32)]


@pytest.mark.parametrize("name", REGISTRY)
def test_runs_in_flowers_own_start_and_gives_what_aggregate_gives(name):
    steps, examples, norms = [1.0, 2.0, 6.0, 7.0], [10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0]
    clients = {k: mover(steps[k], examples[k], norms[k], k) for k in range(4)}
    strategy = REGISTRY[name]()
    assert isinstance(strategy, Strategy)
    result = strategy.start(InlineGrid(clients), wire.record(X), num_rounds=2)
    expected, memory = X, {}
    for _ in range(2):
        updates = [Update([a + np.float32(steps[k]) for a in expected], examples[k], norms[k], k) for k in range(4)]
        if issubclass(REGISTRY[name], MemoryShell):
            expected, memory = REGISTRY[name].step(expected, updates, memory)
        else:
            expected = aggregate(name, expected, updates)
    got = wire.arrays_of(result.arrays)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in expected]
    assert [a.dtype for a in got] == [np.float32, np.float32]
    assert result.evaluate_metrics_clientapp[2]["accuracy"] == pytest.approx(0.75)  # Flower's own federated evaluation


def _replies(*clients) -> list[Message]:
    grid = InlineGrid(dict(enumerate(clients)))
    strategy = REGISTRY["fedavg"]()
    replies = grid.send_and_receive(strategy.configure_train(1, wire.record(X), ConfigRecord(), grid))
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def _raises(arrays, config):
    raise RuntimeError("the disk\nis full")


def _returns(change, examples=10, facts=None):
    def fit(arrays, config):
        return change(arrays), examples, {"client": 0, **(facts or {})}

    return fit


@pytest.mark.parametrize(
    ("client", "status", "says"),
    [
        (_raises, "failed", "RuntimeError: the disk is full"),
        (_returns(lambda x: [x[0] * np.nan, x[1]]), "rejected", "array 0 holds values that are not finite"),
        (_returns(lambda x: [x[0][:1], x[1]]), "rejected", "array 0 has shape (1, 3) where the model has (2, 3)"),
        (_returns(lambda x: [*x, x[0]]), "rejected", "3 arrays where the model has 2"),
        (_returns(lambda x: [x[0].astype(np.float64), x[1]]), "rejected", "array 0 has dtype float64"),
        (_returns(lambda x: x, examples=0), "rejected", "num_examples must be > 0, not 0"),
        (_returns(lambda x: x, examples=-3), "rejected", "num_examples must be > 0, not -3"),
        (
            _returns(lambda x: x, facts={"local_norm": float("inf")}),
            "rejected",
            "local_norm must be in 0..1e+100, not inf",
        ),
        (_returns(lambda x: x, facts={"local_norm": [1.0]}), "rejected", "local_norm must be a number, not a list"),
    ],
)
def test_one_bad_client_is_named_and_the_others_count(client, status, says):
    verdicts = []
    passed = list(screen(_replies(mover(1), client, mover(3)), Expected(X), verdicts.append))
    assert [update.arrays[1] for _, update in passed] == [1.5, 3.5]
    assert [v.status for v in verdicts] == ["ok", status, "ok"]
    assert says in verdicts[1].reason
    assert verdicts[1].node_id == 101
    assert "\n" not in verdicts[1].reason


def test_gate_refuses_a_reply_without_the_right_records():
    replies = _replies(mover(1), mover(2))
    arrays = replies[0].content["arrays"]
    replies[0].content = RecordDict({"arrays": arrays})
    replies[1].content = RecordDict({"a": arrays, "b": arrays, "metrics": wire.metrics(1, {})})
    verdicts = []
    assert list(screen(replies, Expected(X), verdicts.append)) == []
    assert all("expected one record of arrays and one of metrics" in v.reason for v in verdicts)


def test_gate_refuses_arrays_that_cannot_be_read():
    [reply] = _replies(mover(1))
    reply.content["arrays"]["0"].data = b"not an array"
    verdicts = []
    assert list(screen([reply], Expected(X), verdicts.append)) == []
    assert "cannot be read" in verdicts[0].reason


def test_a_client_without_a_norm_is_refused_by_fednova_alone():
    replies = _replies(mover(1, norm=None), mover(2))
    strategy = REGISTRY["fednova"]()
    verdicts = []
    strategy.report = verdicts.append
    grid = InlineGrid({0: mover(1)})
    strategy.configure_train(1, wire.record(X), ConfigRecord(), InlineGrid({0: mover(1), 1: mover(1)}))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert grid.asked == []
    assert [v.status for v in verdicts] == ["rejected", "ok"]
    assert "local_norm is missing" in verdicts[0].reason
    assert wire.arrays_of(arrays)[1] == 2.5


@pytest.mark.parametrize("name", REGISTRY)
def test_no_valid_reply_gives_none_and_not_a_crash(name):
    strategy = REGISTRY[name]()
    grid = InlineGrid({0: _raises, 1: _raises})
    replies = grid.send_and_receive(strategy.configure_train(1, wire.record(X), ConfigRecord(), grid))
    assert strategy.aggregate_train(1, replies) == (None, None)


# Naming strategies --------------------------------------------------------------------------------------------------


def test_any_flower_strategy_by_its_dotted_path_with_options():
    strategy = make_strategy("flwr.serverapp.strategy.FedAdam:eta=0.5,tau=0.01")
    assert isinstance(strategy, FedAdam)
    assert (strategy.eta, strategy.tau, strategy.min_available_nodes) == (0.5, 0.01, 1)


def test_ours_take_flowers_arguments_and_their_own():
    strategy = make_strategy("fednova:fraction_train=0.5", [True, False])
    assert strategy.fraction_train == 0.5
    assert strategy.options == {"trainable": [True, False]}


@pytest.mark.parametrize(
    ("specification", "says"),
    [
        ("fedmedain", "unknown strategy 'fedmedain'; did you mean 'fedmedian'?"),
        ("flwr.serverapp.strategy.FedAdm", "AttributeError"),
        ("no.such.Thing", "ModuleNotFoundError"),
        ("pathlib.Path", "not a subclass"),
        ("fedavg:trim=1", "fedavg has no option 'trim'"),
        ("fedavg:fraction_trian=1", "did you mean 'fraction_train'"),
        ("fedavg:oops", "NAME:option=value"),
        ("flwr.serverapp.strategy.FedAdam:etta=1", "did you mean 'eta'"),
        ("flwr.serverapp.strategy.strategy.Strategy", "TypeError"),
    ],
)
def test_a_strategy_that_does_not_do_is_one_clear_line(specification, says):
    with pytest.raises(UserError) as caught:
        make_strategy(specification)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conform_brings_results_back_to_the_models_dtypes():
    [new] = conform([np.ones(2, np.float64)], [np.zeros(2, np.float32)])
    assert new.dtype == np.float32
    with pytest.raises(ValueError, match="other shapes"):
        conform([np.ones(3)], [np.zeros(2)])
    assert conform([np.array([np.nan])], [np.zeros(1)]) is None
    assert conform([np.array([1e39])], [np.zeros(1, np.float32)]) is None
