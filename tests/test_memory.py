"""Strategies that remember, and those with a half at the client: steps against closed forms, messages, resumes."""

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_grid import InlineGrid, mover

from client.local_norm import local_norm
from server.checkpoint import Checkpoints, Saved
from server.results import Entry
from strategies import REGISTRY, Update, aggregate
from strategies.base import Shell, needs_of, rule_options
from strategies.memory import MemoryShell
from strategies.scaffold import correction
from strategies.specify import make_strategy
from task import wire
from task.config import Training
from task.errors import UserError

REMEMBER = [name for name, shell in REGISTRY.items() if issubclass(shell, MemoryShell)]
X = [np.array([1.0, -2.0], np.float32), np.array(0.5, np.float32), np.array([5], np.int64)]


def vector(*values: float, dtype: type = np.float64) -> list[np.ndarray]:
    return [np.array(values, dtype)]


def bits(arrays: Iterable[np.ndarray]) -> list[tuple[Any, ...]]:
    return [(a.shape, a.dtype, a.tobytes()) for a in arrays]


def memory_bits(memory: dict[str, list[np.ndarray]]) -> list[tuple[str, Any]]:
    """Names in their order, too, which a checkpoint keeps."""
    return [(name, bits(arrays)) for name, arrays in memory.items()]


def kept(folder: Path, *saved: Any) -> Saved:
    """What comes back out of a checkpoint."""
    checkpoints, entry = Checkpoints(folder, {}), Entry("iid", "it", 0)
    checkpoints.save(entry, Saved(*saved))
    found = checkpoints.latest(entry, saved[0], print)
    assert found is not None
    return found


def some_updates(seed: int, x: list[np.ndarray] = X) -> list[Update]:
    random = np.random.default_rng(seed)
    return [
        Update([a + random.normal(0, 3, a.shape).astype(a.dtype) for a in x], 10 * (k + 1), k + 1.0, k, k + 1)
        for k in range(3)
    ]


class Corrected(InlineGrid):
    """A grid whose clients find the correction of their message in their configuration."""

    def _answer(self, message: Message) -> Message:
        arrays, config = wire.read(message)
        config["correction"] = wire.correction_of(message)
        return wire.reply(message, *self.clients[message.metadata.dst_node_id](arrays, config))


def play(strategy: Shell, grid: InlineGrid, x: list[np.ndarray], rounds: range, **config: Any) -> list[np.ndarray]:
    """Rounds by the strategy's own messages, as a server plays them."""
    strategy.clients = {node: client for client, node in grid.nodes.items()}
    for number in rounds:
        messages = strategy.configure_train(number, wire.record(x), ConfigRecord(config), grid)
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(messages))
        assert arrays is not None
        x = wire.arrays_of(arrays)
    return x


# Every rule with a memory -------------------------------------------------------------------------------------------


def test_who_remembers():
    assert REMEMBER == ["fedavgm", "fedadam", "fedyogi", "scaffold"]


@pytest.mark.parametrize("name", REMEMBER)
def test_a_step_changes_nothing_that_it_is_given_and_does_not_depend_on_the_order(name):
    step = REGISTRY[name].step
    x, memory = step(X, some_updates(1), {})
    updates = some_updates(2, x)
    given = bits(x), memory_bits(memory), [bits(u.arrays) for u in updates]
    ends = []
    for order in permutations(updates):
        new, after = step(x, iter(order), memory)
        assert (bits(x), memory_bits(memory), [bits(u.arrays) for u in updates]) == given
        assert [(a.shape, a.dtype) for a in new] == [(a.shape, a.dtype) for a in x]
        ends.append((bits(new), memory_bits(after)))
    assert all(end == ends[0] for end in ends)
    assert ends[0][1] != memory_bits(memory)


@pytest.mark.parametrize("name", REMEMBER)
def test_the_rule_is_the_first_step_and_has_its_options(name):
    shell = REGISTRY[name]
    updates = some_updates(1)
    first, _ = shell.step(X, updates, {}, learning_rate=0.5)
    assert bits(shell.rule(X, updates, learning_rate=0.5)) == bits(first)
    assert bits(aggregate(name, X, updates, learning_rate=0.5)) == bits(first)
    assert {"learning_rate", "trainable"} <= rule_options(shell.rule)
    assert "memory" not in rule_options(shell.rule)
    with pytest.raises(TypeError, match=f"{name} has no option memory"):
        aggregate(name, X, updates, memory={})


@pytest.mark.parametrize("name", REMEMBER)
def test_a_run_that_was_stopped_and_resumed_comes_to_the_same_bits(name, tmp_path):
    random = np.random.default_rng(7)
    pulls = [[random.normal(size=a.shape) for a in X] for _ in range(3)]

    def puller(k: int):
        def fit(arrays, config):
            plus = [config["correction"].get(i, 0.0) for i in range(len(arrays))]
            new = [(a + 0.1 * (p - a - c)).astype(a.dtype) for a, p, c in zip(arrays, pulls[k], plus, strict=True)]
            return new, 10 * (k + 1), {"client": k, "local_norm": k + 1.0}

        return fit

    grid = Corrected({k: puller(k) for k in range(3)})
    through = make_strategy(name)
    whole = play(through, grid, X, range(1, 7))
    half = make_strategy(name)
    saved = kept(tmp_path, 3, play(half, grid, X, range(1, 4)), half.memory)
    resumed = make_strategy(name)
    resumed.memory = saved.memory
    assert bits(play(resumed, grid, saved.arrays, range(4, 7))) == bits(whole)
    assert memory_bits(resumed.memory) == memory_bits(through.memory)
    assert bits(play(make_strategy(name), grid, saved.arrays, range(4, 7))) != bits(whole)


@pytest.mark.parametrize("name", REMEMBER)
def test_flowers_own_start_makes_one_step_a_round(name):
    steps = {0: 1.0, 1: 3.0}
    strategy = REGISTRY[name]()
    grid = InlineGrid({k: mover(steps[k], 10, 1.0, k) for k in steps})
    result = strategy.start(grid, wire.record(X), num_rounds=3)
    x, memory = X, {}
    for _ in range(3):
        updates = [Update([a + np.asarray(steps[k], a.dtype) for a in x], 10, 1.0, 100 + k) for k in steps]
        x, memory = REGISTRY[name].step(x, updates, memory)
    assert bits(wire.arrays_of(result.arrays)) == bits(x)
    assert memory_bits(strategy.memory) == memory_bits(memory)


@pytest.mark.parametrize("name", REMEMBER)
def test_a_round_without_a_valid_reply_is_not_remembered(name):
    strategy = make_strategy(name)
    bad = InlineGrid({0: lambda arrays, config: ([a * np.float32(np.nan) for a in arrays], 10, {"local_norm": 1.0})})
    messages = strategy.configure_train(1, wire.record(vector(1, 2)), ConfigRecord(), bad)
    assert strategy.aggregate_train(1, bad.send_and_receive(messages)) == (None, None)
    assert strategy.memory == {}


# Momentum and adaptive steps ----------------------------------------------------------------------------------------


def moved(x: list[np.ndarray], by: float) -> list[Update]:
    return [Update([a + by - 1 for a in x], 3), Update([a + by + 3 for a in x], 1)]  # their weighted mean: x + by


@given(st.integers(0, 10**6), st.sampled_from([np.float16, np.float32, np.float64]))
@settings(max_examples=25)
def test_fedavgm_without_momentum_is_the_weighted_mean_to_the_bit(seed, dtype):
    random = np.random.default_rng(seed)

    def model() -> list[np.ndarray]:
        return [(random.normal(size=9) * 10.0 ** random.integers(-4, 4, 9)).astype(dtype), np.array([-0.0], dtype)]

    x, memory = model(), {"v": [random.normal(size=9), np.ones(1)]}
    updates = [Update([model()[0], np.array([-0.0], dtype)], int(n)) for n in random.integers(1, 99, 4)]
    expected = bits(aggregate("weighted", x, updates))
    assert bits(REGISTRY["fedavgm"].step(x, updates, memory, momentum=0.0)[0]) == expected
    assert bits(aggregate("fedavgm", x, updates)) == expected  # nothing to remember yet


@pytest.mark.parametrize(("rate", "expected"), [(1.0, [1, 2.9, 5.61]), (0.5, [0.5, 1.45, 2.805])])
def test_fedavgm_rolls_on(rate, expected):
    """V = 1, 1.9, 2.71 where every mean is one further; x adds up rate * v."""
    x, memory = vector(0), {}
    for value in expected:
        x, memory = REGISTRY["fedavgm"].step(x, moved(x, 1), memory, momentum=0.9, learning_rate=rate)
        assert x[0][0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        # v before: tau^2 = 1e-6. Adam: .99 * 1e-6 + .01 * 1; .99 * .01000099 + .01 * 4; .99 * .0499009801 + .01 * .01
        ("fedadam", [0.01000099, 0.0499009801, 0.049501970299]),
        # Yogi: 1e-6 + .01 * 1; .010001 + .01 * 4; .050001 - .01 * .01, as .050001 > .01
        ("fedyogi", [0.010001, 0.050001, 0.049901]),
    ],
)
def test_adaptive_steps_by_hand(name, second):
    """Means that move by 1, 2, .1: m = .1 * 1; .9 * .1 + .1 * 2; .9 * .29 + .1 * .1."""
    x, memory, place = vector(4), {}, 4.0
    for by, m, v in zip([1, 2, 0.1], [0.1, 0.29, 0.271], second, strict=True):
        x, memory = REGISTRY[name].step(x, moved(x, by), memory, learning_rate=0.1, beta1=0.9, beta2=0.99, tau=0.001)
        place += 0.1 * m / (v**0.5 + 0.001)
        assert memory["m"][0][0] == pytest.approx(m, abs=1e-12)
        assert memory["v"][0][0] == pytest.approx(v, abs=1e-12)
        assert x[0][0] == pytest.approx(place, abs=1e-12)


@pytest.mark.parametrize("name", REMEMBER)
def test_what_gradients_do_not_move_is_averaged(name):
    """A weight, a running mean, a counter: means 2, 3, 4 of movements 1, 3 (weights alike)."""
    x = [np.array([1.0]), np.array([2.0]), np.array([2])]
    updates = [Update([a + by for a in x], 10, 1.0, by) for by in (1, 3)]
    memory = {}
    for _ in range(2):
        (weight, mean, counter), memory = REGISTRY[name].step(
            x, updates, memory, learning_rate=0.5, trainable=[True, False, True]
        )
        assert weight[0] != 3
        assert mean.tolist() == counter.tolist() == [4]
        assert {len(arrays) for arrays in memory.values()} == {1}


@pytest.mark.parametrize(
    ("specification", "says"),
    [
        ("fedavgm:momentum=1", "momentum must be a number >= 0 and < 1, not 1"),
        ("fedadam:learning_rate=0", "learning_rate must be a number > 0 and finite, not 0"),
        ("fedyogi:tau=big", "tau must be a number > 0 and finite, not 'big'"),
        ("fedprox:mu=-1", "mu must be a number >= 0 and finite, not -1"),
        ("fednova:mu=true", "mu must be a number >= 0 and finite, not True"),
        ("scaffold:local_learning_rate=Infinity", "local_learning_rate must be a number > 0 and finite, not inf"),
    ],
)
def test_an_option_out_of_its_range_is_one_clear_line(specification, says):
    with pytest.raises(UserError) as caught:
        make_strategy(specification)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_out_of_its_range_offline():
    with pytest.raises(ValueError, match=r"beta1 must be a number >= 0 and < 1, not -0\.1"):
        aggregate("fedadam", vector(0), [Update(vector(1), 1)], beta1=-0.1)


# The proximal term --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("fedprox", {"proximal-mu": 0.01}),
        ("fedprox:mu=0.5", {"proximal-mu": 0.5}),
        ("fednova:mu=1", {"proximal-mu": 1.0}),
    ]
    + [(name, {}) for name in REGISTRY if name != "fedprox"],
)
def test_what_train_messages_say(specification, said):
    """Of a first round: a new strategy's messages hold the model and the configuration, and no more."""
    config = ConfigRecord({"epochs": 2})
    grid = InlineGrid({0: mover(1), 1: mover(1)})
    messages = list(make_strategy(specification).configure_train(1, wire.record(X), config, grid))
    for message in messages:
        assert set(message.content) == {"arrays", "config"}
        assert dict(message.content["config"]) == {"epochs": 2, "server-round": 1, **said}
    assert "proximal-mu" not in config


def test_fedprox_aggregates_as_the_weighted_mean_does():
    updates = some_updates(3)
    assert bits(aggregate("fedprox", X, updates, mu=0.3)) == bits(aggregate("weighted", X, updates))


def brute_force_norm(steps: int, rho: float, eta: float, mu: float) -> float:
    """Local training on gradients that are unit vectors: what became of each is its weight."""
    y, buffer = np.zeros(steps), np.zeros(steps)
    for gradient in np.eye(steps):
        buffer = rho * buffer + gradient + mu * y
        y = y - eta * buffer
    return float(np.abs(y).sum() / eta)


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
@pytest.mark.parametrize(("rho", "mu"), [(0, 0), (0.5, 0), (0.9, 0), (0, 0.01), (0, 1), (0, 9)])
def test_local_norm_by_brute_force(steps, rho, mu):
    expected = brute_force_norm(steps, rho, 0.05, mu)
    assert local_norm(steps, rho, 0.05, mu) == pytest.approx(expected, rel=1e-10)


MU, ETA = 2.0, 0.01
ENDS, TAUS = (0.0, 1.0), (2, 8)


def _pulled(end: float, steps: int, mu: float = 0.0):
    """Full gradients of F(y) = (y - end)^2 / 2 and of the proximal term; corrected where the message says so."""

    def fit(arrays, config):
        y, plus = arrays[0].copy(), config.get("correction", {}).get(0, 0.0)
        for _ in range(steps):
            y = y - ETA * (y - end + mu * (y - arrays[0]) + plus)
        facts = {"local_steps": steps, "local_norm": local_norm(steps, 0.0, ETA, mu)}
        return [y], 100, facts

    return fit


def two(mu: float = 0.0) -> Corrected:
    return Corrected({k: _pulled(ENDS[k], TAUS[k], mu) for k in range(2)})


def test_fednova_with_a_proximal_term_in_rounds():
    """A client ends at x + s_i (e_i - x), s_i = [1 - (1 - eta (1 + mu))^tau_i] / (1 + mu)."""
    s = [(1 - (1 - ETA * (1 + MU)) ** tau) / (1 + MU) for tau in TAUS]
    per_step = [s[i] / local_norm(TAUS[i], 0.0, ETA, MU) for i in range(2)]
    first = 0.9 + (2 + 8) / 2 * sum(per_step[i] * (ENDS[i] - 0.9) for i in range(2)) / 2
    grid = two(MU)
    assert play(make_strategy("fednova:mu=2"), grid, vector(0.9), range(1, 2))[0] == pytest.approx(first, abs=1e-12)
    assert grid.configs == []  # `Corrected` keeps none
    last = play(make_strategy("fednova:mu=2"), grid, vector(0.9), range(1, 401))[0]
    assert last == pytest.approx(per_step[1] / sum(per_step), abs=1e-6)


def test_fednova_with_a_proximal_term_needs_the_steps():
    strategy = make_strategy("fednova:mu=0.1")
    assert needs_of(strategy) == ("num_examples", "local_norm", "local_steps")
    assert (
        needs_of(make_strategy("fednova")) == needs_of(make_strategy("fednova:mu=0")) == ("num_examples", "local_norm")
    )
    assert set(needs_of(strategy)) <= wire.ASKABLE.keys()
    with pytest.raises(ValueError, match="client 0: fednova with mu needs local_steps"):
        aggregate("fednova", vector(0), [Update(vector(1), 1, 1.0, 0)], mu=0.1)
    equal = [Update(vector(by), 1, 2.5, k, 3) for k, by in enumerate((1, 2))]
    assert aggregate("fednova", vector(0), equal, mu=0.1)[0] == pytest.approx(1.5 * 3 / 2.5)
    assert aggregate("fednova", vector(0), equal)[0] == 1.5


@pytest.mark.parametrize(
    ("specification", "training", "says"),
    [
        ("fednova:mu=0.1", {"momentum": 0.9}, "a proximal term and momentum at once"),
        ("fednova:mu=0.1", {"optimizer": "adam"}, "the optimizer adam"),
        ("fednova", {"momentum": 0.9, "nesterov": True}, "Nesterov momentum"),
        ("scaffold", {"momentum": 0.9}, "momentum: the paper corrects the gradients of plain sgd"),
        ("scaffold", {"optimizer": "adam"}, "the optimizer adam"),
        ("fednova", {"momentum": 0.9}, None),
        ("fednova:mu=0.1", {}, None),
        ("fedprox", {"momentum": 0.9}, None),
        ("fedprox", {"optimizer": "adam"}, None),
        ("scaffold", {}, None),
        ("weighted", {"optimizer": "adam"}, None),
    ],
)
def test_what_a_strategy_is_not_defined_for(specification, training, says):
    reason = make_strategy(specification).undefined_for(Training(**training))
    assert reason is None if says is None else says in reason


def test_who_needs_a_common_start():
    assert {name for name, shell in REGISTRY.items() if shell.subtracts} == {*REMEMBER, "fednova"}


# SCAFFOLD -----------------------------------------------------------------------------------------------------------


def test_scaffold_by_hand():
    """Eta = .5; two clients with K = (1, 2) that end at (1, 3): (x - y) / (K eta) = -1 / .5, -3 / 1."""
    step = REGISTRY["scaffold"].step
    x, memory = step(
        vector(0), [Update(vector(1), 9, 1.0, 3), Update(vector(3), 1, 2.0, 5)], {}, local_learning_rate=0.5
    )
    assert x[0] == 2  # the plain mean, whatever the examples
    assert {name: float(arrays[0][0]) for name, arrays in memory.items()} == {"c": -2.5, "client-3": -2, "client-5": -3}
    assert correction(x, memory, 3)[0] == -0.5
    assert correction(x, memory, 4)[0] == -2.5  # not seen yet
    # Client 3 alone, one step to 4: c_3+ = c_3 - c + (2 - 4) / .5 = -2 + 2.5 - 4 = -3.5; c+ = -2.5 - 1.5 / N.
    alone = [Update(vector(4), 9, 1.0, 3)]
    for clients, c in [(None, -3.25), (2, -3.25), (3, -3.0), (6, -2.75)]:
        new, after = step(x, alone, memory, local_learning_rate=0.5, learning_rate=0.25, clients=clients)
        assert new[0] == 2.5  # 2 + .25 * (4 - 2)
        assert {n: float(a[0][0]) for n, a in after.items()} == {"c": c, "client-3": -3.5, "client-5": -3}


def test_scaffold_with_numbers_that_are_unknown_or_given_twice():
    step = REGISTRY["scaffold"].step
    updates = [Update(vector(1), 9, 1.0), Update(vector(3), 1, 1.0)]
    assert step(vector(0), updates, {})[1].keys() == {"c"}
    assert step(vector(0), updates, {})[1]["c"][0] == pytest.approx(-20)  # mean of -1 / .1 and -3 / .1
    with pytest.raises(ValueError, match="client 4 is there twice"):
        step(vector(0), [Update(vector(1), 9, 1.0, 4)] * 2, {})


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_scaffold_moves_to_the_plain_mean_to_the_bit(seed):
    random = np.random.default_rng(seed)
    x = [random.normal(size=9).astype(np.float32)]
    updates = [Update([random.normal(size=9).astype(np.float32)], 10, 1.0, k) for k in range(4)]
    expected = bits(aggregate("fedavg", x, updates))
    new, memory = REGISTRY["scaffold"].step(x, updates, {})
    assert bits(new) == expected
    assert bits(REGISTRY["scaffold"].step(x, updates, memory)[0]) == expected


@pytest.mark.parametrize(("name", "end"), [("weighted", 0.795173), ("scaffold", 0.5)])
def test_scaffold_comes_to_the_true_optimum_where_the_mean_does_not(name, end, tmp_path):
    """TRUTH: F_i = (x - e_i)^2 / 2, e = (0, 1), full gradients, 2 and 8 local steps; stopped and resumed on the way."""
    grid, first = two(), make_strategy(name)
    x = play(first, grid, vector(0.9), range(1, 151), learning_rate=ETA)
    saved, second = kept(tmp_path, 150, x, first.memory), make_strategy(name)
    second.memory = saved.memory
    there = play(second, grid, saved.arrays, range(151, 501), learning_rate=ETA)
    assert there[0][0] == pytest.approx(end, abs=1e-6)
    assert bits(there) == bits(play(first, grid, x, range(151, 501), learning_rate=ETA))
    if name == "scaffold":  # c_i is the gradient of F_i where it ended, and c that of the mean, 0
        assert second.memory["client-0"][0][0] == pytest.approx(0.5, abs=1e-5)
        assert second.memory["client-1"][0][0] == pytest.approx(-0.5, abs=1e-5)
        assert second.memory["c"][0][0] == pytest.approx(0, abs=1e-5)


def test_scaffold_with_one_of_three_clients_a_round_comes_to_the_true_optimum():
    """Optima 0, 1, 2: without the variates x would go on moving towards whoever is asked."""
    grid = Corrected({k: _pulled(end, steps) for k, (end, steps) in enumerate([(0.0, 2), (1.0, 8), (2.0, 4)])})
    strategy, x, asked = make_strategy("scaffold"), vector(0.0), np.random.default_rng(0).integers(3, size=1200)
    strategy.clients = {node: client for client, node in grid.nodes.items()}
    for number, client in enumerate(asked, 1):
        messages = strategy.configure_train(number, wire.record(x), ConfigRecord({"learning_rate": ETA}), grid)
        to_one = [message for message in messages if strategy.clients[message.metadata.dst_node_id] == client]
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(to_one))
        x = wire.arrays_of(arrays)
    assert x[0][0] == pytest.approx(1.0, abs=1e-6)


def test_scaffold_sends_each_client_its_own_correction_beside_the_model():
    strategy, grid = make_strategy("scaffold"), two()
    x = play(strategy, grid, vector(0.9), range(1, 2), learning_rate=ETA)
    messages = list(strategy.configure_train(2, wire.record(x), ConfigRecord({"learning_rate": ETA}), grid))
    # One step's mean gradient of client i is c_i; x - y = eta tau c_i.
    c = [(0.9 - e) * (1 - 0.99**tau) / (ETA * tau) for e, tau in zip(ENDS, TAUS, strict=True)]
    for message in messages:
        i = message.metadata.dst_node_id - 100
        [(place, array)] = wire.correction_of(message).items()
        assert place == 0
        assert array[0] == pytest.approx(sum(c) / 2 - c[i], abs=1e-12)
        assert bits(wire.read(message)[0]) == bits(x)
        assert wire.array_bytes(message) == 2 * wire.record_bytes(wire.record(x))
        fated = wire.with_config(message, {"epochs": 3})
        assert wire.correction_of(fated).keys() == {0}
        assert wire.read(fated)[1]["epochs"] == 3


def test_scaffold_goes_by_the_servers_numbers_and_the_clients_learning_rate():
    """The nodes do not say which clients they are."""
    for config, options, eta in [
        ({"learning_rate": 0.5}, "", 0.5),
        ({}, "", 0.1),
        ({}, ":local_learning_rate=0.2", 0.2),
    ]:
        strategy = make_strategy(f"scaffold{options}")
        play(strategy, InlineGrid({k: mover(k + 1, 10, 4.0) for k in (1, 2)}), vector(0), range(1, 2), **config)
        assert {name: float(arrays[0][0]) for name, arrays in strategy.memory.items()} == pytest.approx(
            {"c": -2.5 / (4 * eta), "client-1": -2 / (4 * eta), "client-2": -3 / (4 * eta)}
        )


def test_scaffold_refuses_a_client_that_does_not_say_its_steps():
    strategy, verdicts = make_strategy("scaffold"), []
    strategy.report = verdicts.append
    play(strategy, InlineGrid({0: mover(1, norm=None), 1: mover(2)}), vector(0), range(1, 2))
    assert {v.node_id: v.status for v in verdicts} == {100: "rejected", 101: "ok"}
    assert strategy.memory.keys() == {"c", "client-1"}
    assert strategy.memory["c"][0][0] == pytest.approx(-10)  # half of client 1's -2 / .1
