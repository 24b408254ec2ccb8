"""What the rules compute: closed forms, and one conformance suite over everything in REGISTRY."""

import inspect
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from inline_grid import InlineGrid, mover

from strategies import REGISTRY, Update, aggregate
from strategies.base import _FLOWER_WEIGHTS_BY, conform, needs_of, weights_by
from strategies.specify import make_strategy
from task import wire
from task.structure import Group, Place, Structure

ALL = sorted(REGISTRY)
CASES = [*ALL, "matched with units", "trimmed-mean of all", "multi-krum of two", "centered-clipping in a small radius"]
OPTIONS: dict[str, dict[str, Any]] = {
    "trimmed-mean of all": {"trim": 0},
    "multi-krum of two": {"attackers": 0, "keep": 2},
    "centered-clipping in a small radius": {"radius": 0.25, "iterations": 3},
}
LOOSE = {"krum", "multi-krum", "multi-krum of two", "centered-clipping in a small radius"}
"""Cases whose result need not be near the middle of all clients."""

# Does the result move with the clients and the global model? Grow with them? A name stands for the options that are
# lengths, and have to grow as well.
MOVES, GROWS = True, True
SYMMETRY: dict[str, tuple[bool, bool | str]] = {
    "fedavg": (MOVES, GROWS),
    "fedmedian": (MOVES, GROWS),
    "weighted": (MOVES, GROWS),
    "fednova": (MOVES, GROWS),
    "matched": (MOVES, GROWS),
    "matched with units": (False, GROWS),  # far from zero its search ends early: gains are measured by the norms
    "fedprox": (MOVES, GROWS),
    "fedavgm": (MOVES, GROWS),
    "fedadam": (MOVES, False),  # steps of a length of their own
    "fedyogi": (MOVES, False),
    "scaffold": (MOVES, GROWS),
    "trimmed-mean": (MOVES, GROWS),
    "trimmed-mean of all": (MOVES, GROWS),
    "krum": (MOVES, GROWS),
    "multi-krum": (MOVES, GROWS),
    "multi-krum of two": (MOVES, GROWS),
    "geometric-median": (MOVES, "smoothing"),
    "centered-clipping": (MOVES, GROWS),
    "centered-clipping in a small radius": (MOVES, "radius"),
}

finite32 = st.floats(-(2.0**100), 2.0**100, width=32)  # subnormals and both zeros, too


def vector(*values: float, dtype: type = np.float32) -> list[np.ndarray]:
    return [np.array(values, dtype=dtype)]


@st.composite
def federations(draw, dtype=np.float32, elements=finite32):
    """A global model of two arrays, and updates of one to nine clients."""
    shapes = draw(st.lists(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), min_size=1, max_size=2))

    def model():
        return [draw(hnp.arrays(dtype, shape, elements=elements)) for shape in shapes]

    updates = [
        Update(model(), draw(st.integers(1, 2000)), draw(st.floats(0.5, 100)), client)
        for client in range(draw(st.integers(1, 9)))
    ]
    return model(), updates


def same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def nearest32(exact: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even; by way of a double it would be rounded twice."""
    near = np.float32(float(exact))
    around = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    return min(around, key=lambda f: (abs(Fraction(float(f)) - exact), int(f.view(np.uint32)) & 1))


# Closed forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expected"), [("fednova", [2, 2]), ("weighted", [1.5, 2.5]), ("fedavg", [1.5, 2.5])])
def test_two_clients_with_unequal_steps(name, expected):
    updates = [Update(vector(2, 1), 10, 1.0, 0), Update(vector(1, 4), 10, 3.0, 1)]
    assert aggregate(name, vector(1, 1), updates)[0].tolist() == expected


def test_weighted_counts_examples_and_fedavg_does_not():
    updates = [Update(vector(0), 1, 1.0), Update(vector(4), 3, 1.0)]
    assert aggregate("weighted", vector(9), updates)[0].tolist() == [3]
    assert aggregate("fedavg", vector(9), updates)[0].tolist() == [2]


def test_median_is_the_middle_or_the_mean_of_the_two_middles():
    three = [Update(vector(*v), 1) for v in [(2, 1), (1, 4), (9, 2)]]
    assert aggregate("fedmedian", vector(0, 0), three)[0].tolist() == [2, 2]
    assert aggregate("fedmedian", vector(0, 0), three[:2])[0].tolist() == [1.5, 2.5]


def _rounds(name: str, rounds: int) -> float:
    """F_i(x) = (x - e_i)^2 / 2 with full gradients of rate .01; e = (0, 1), tau = (2, 8), p = (1/2, 1/2)."""
    x = vector(0.9, dtype=np.float64)
    for _ in range(rounds):
        updates = []
        for e, tau in [(0.0, 2), (1.0, 8)]:
            local = e + (x[0] - e) * 0.99**tau
            updates.append(Update([local], 100, float(tau)))
        x = aggregate(name, x, updates)
    return float(x[0][0])


@pytest.mark.parametrize(("name", "fixed_point"), [("weighted", 0.795173), ("fednova", 0.492526)])
def test_fixed_point_of_unequal_work(name, fixed_point):
    """The true optimum is .5: the weighted mean drifts to the client that works more, FedNova does not."""
    assert _rounds(name, 600) == pytest.approx(fixed_point, abs=1e-6)


def test_first_step_of_unequal_work():
    c = [1 - 0.99**2, 1 - 0.99**8]
    deltas = [c[0] * (0 - 0.9), c[1] * (1 - 0.9)]
    assert _rounds("weighted", 1) == pytest.approx(0.9 + sum(deltas) / 2, abs=1e-12)
    tau_eff = (2 + 8) / 2
    assert _rounds("fednova", 1) == pytest.approx(0.9 + tau_eff * (deltas[0] / 2 + deltas[1] / 8) / 2, abs=1e-12)


@given(federations())
def test_fedavg_and_weighted_are_the_exact_mean_rounded_once(federation):
    x, updates = federation
    for name, weights in [("fedavg", [1] * len(updates)), ("weighted", [u.num_examples for u in updates])]:
        for i, new in enumerate(aggregate(name, x, updates)):
            for place in np.ndindex(new.shape):
                values = [Fraction(float(u.arrays[i][place])) for u in updates]
                exact = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
                assert new[place] == nearest32(exact)


@given(federations(elements=st.floats(-10, 10, width=32)))
def test_fednova_follows_its_equation(federation):
    x, updates = federation
    n = sum(u.num_examples for u in updates)
    p = [u.num_examples / n for u in updates]
    tau_eff = sum(pi * u.local_norm for pi, u in zip(p, updates, strict=True))
    for i, new in enumerate(aggregate("fednova", x, updates)):
        start = x[i].astype(np.float64)
        steps = sum(pi * (start - u.arrays[i]) / u.local_norm for pi, u in zip(p, updates, strict=True))
        np.testing.assert_allclose(new, start - tau_eff * steps, rtol=1e-5, atol=1e-4)


# Laws between the rules ---------------------------------------------------------------------------------------------


@given(federations(), st.floats(0.5, 100))
def test_equal_norms_make_fednova_the_weighted_mean_to_the_bit(federation, norm):
    x, updates = federation
    equal = [Update(u.arrays, u.num_examples, norm, u.client) for u in updates]
    assert same_bits(aggregate("fednova", x, equal), aggregate("weighted", x, equal))


@given(federations(), st.integers(1, 5000))
def test_equal_examples_make_the_weighted_mean_the_plain_one_to_the_bit(federation, n):
    x, updates = federation
    equal = [Update(u.arrays, n, u.local_norm, u.client) for u in updates]
    assert same_bits(aggregate("weighted", x, equal), aggregate("fedavg", x, equal))


def test_fednova_averages_what_gradients_do_not_move():
    updates = [Update(vector(2) + vector(2), 10, 1.0), Update(vector(4) + vector(4), 10, 3.0)]
    moved, counted = aggregate("fednova", vector(1) + vector(1), updates, trainable=[True, False])
    assert moved.tolist() == [3.0]  # 1 + 2 * (1/2 * 1/1 + 1/2 * 3/3)
    assert counted.tolist() == [3.0]
    assert aggregate("fednova", vector(1), [Update(vector(2), 10, 1.0), Update(vector(7), 10, 3.0)])[0] == [4.0]


# Conformance: whatever is in REGISTRY -------------------------------------------------------------------------------


few = settings(max_examples=25)


def told(case, x):
    """The strategy's name and options; with units: the last axis of every array, those of one size together."""
    if case != "matched with units":
        return case.partition(" ")[0], OPTIONS.get(case, {})
    axes = [(i, a.ndim - 1) for i, a in enumerate(x) if a.ndim and a.shape[-1] > 1]
    sizes = sorted({x[i].shape[axis] for i, axis in axes})
    groups = [
        Group(f"of {n}", n, tuple(Place(i, axis, np.arange(n)[:, None]) for i, axis in axes if x[i].shape[axis] == n))
        for n in sizes
    ]
    structure = Structure(tuple(groups), tuple(a.dtype.kind == "f" for a in x))
    return case.partition(" ")[0], {"structure": structure, "restarts": 2}


def conforming(case, x, updates, **others):
    """What `aggregate` gives, or of fewer updates than it takes for the options what a federation goes on with."""
    name, options = told(case, x)
    options = {**options, **others}
    if len(updates) < REGISTRY[name].fewest(options):
        return conform(REGISTRY[name].rule(x, updates, **options), x)
    return aggregate(name, x, updates, **options)


@pytest.mark.parametrize("case", CASES)
@few
@given(federation=federations(), random=st.randoms(use_true_random=False))
def test_order_of_updates_does_not_matter_to_the_bit(case, federation, random):
    x, updates = federation
    shuffled = random.sample(updates, len(updates))
    unnumbered = [Update(u.arrays, u.num_examples, u.local_norm) for u in shuffled]
    expected = conforming(case, x, updates)
    assert same_bits(expected, conforming(case, x, shuffled))
    if case != "matched with units":
        assert same_bits(expected, conforming(case, x, unnumbered))
    else:  # whose units are the order of the result depends on who can be told apart
        turned = random.sample(unnumbered, len(unnumbered))
        assert same_bits(conforming(case, x, turned), conforming(case, x, unnumbered))


@pytest.mark.parametrize("case", CASES)
@few
@given(federation=federations(), random=st.randoms(use_true_random=False))
def test_a_stream_in_any_order_gives_the_same_bits(case, federation, random):
    """The running server does not sort: replies are aggregated as they come."""
    x, updates = federation
    name, options = told(case, x)
    stream = iter(random.sample(updates, len(updates)))
    assert same_bits(REGISTRY[name].rule(x, stream, **options), conforming(case, x, updates))


@pytest.mark.parametrize("case", CASES)
@few
@given(data=st.data(), dtype=st.sampled_from([np.float16, np.float32, np.float64]))
def test_nobody_moved(case, data, dtype):
    width = np.dtype(dtype).itemsize * 8
    x, updates = data.draw(federations(dtype, st.floats(-1000, 1000, width=width)))
    unmoved = [Update([a.copy() for a in x], u.num_examples, u.local_norm) for u in updates]
    result = conforming(case, x, unmoved)
    assert all(np.array_equal(new, old) for new, old in zip(result, x, strict=True))


@pytest.mark.parametrize("case", CASES)
@few
@given(federation=federations())
def test_inputs_stay_and_shapes_and_dtypes_are_kept(case, federation):
    x, updates = federation
    before = [a.tobytes() for u in updates for a in u.arrays] + [a.tobytes() for a in x]
    result = conforming(case, x, updates)
    assert [a.tobytes() for u in updates for a in u.arrays] + [a.tobytes() for a in x] == before
    assert all(isinstance(new, np.ndarray) for new in result)
    assert [(new.shape, new.dtype) for new in result] == [(old.shape, old.dtype) for old in x]
    assert not any(np.shares_memory(new, a) for new in result for u in updates for a in u.arrays)


@pytest.mark.parametrize("case", CASES)
def test_integer_arrays_keep_their_dtype(case):
    """A step counter, say: the result is a whole number between the clients'."""
    x = [np.array([5, 5], dtype=np.int64), np.zeros(2, np.float32)]
    updates = [Update([np.array(v), np.ones(2, np.float32)], 10, 1.0) for v in ([6, 8], [7, 8], [9, 8])]
    counter, _ = conforming(case, x, updates)
    assert counter.dtype == np.int64
    if case in LOOSE:
        assert 5 < counter[0] <= 9
        assert 5 < counter[1] <= 8
    else:
        assert counter.tolist() == [7, 8]


def drawn(seed, dtype, clients=7):
    """A global model and clients around another point, no two as far from each other."""
    random = np.random.default_rng(seed)

    def model(middle):
        return [(middle + random.standard_normal(shape)).astype(dtype) for shape in ((4, 3), (3,), ())]

    return model(0), [Update(model(2), int(random.integers(1, 99)), random.uniform(1, 9), i) for i in range(clients)]


def transformed(change, x, updates):
    """The same federation with every array changed."""
    turned = [
        Update([np.asarray(change(a), a.dtype) for a in u.arrays], u.num_examples, u.local_norm, u.client)
        for u in updates
    ]
    return [np.asarray(change(a), a.dtype) for a in x], turned


def test_every_rule_says_its_symmetries():
    assert set(CASES) == set(SYMMETRY)


@pytest.mark.parametrize("case", [case for case in CASES if SYMMETRY[case][0]])
@pytest.mark.parametrize("seed", range(3))
def test_the_result_moves_with_the_models(case, seed):
    x, updates = drawn(seed, np.float64)
    moved = conforming(case, *transformed(lambda a: a + 1000.0, x, updates))
    for new, old in zip(moved, conforming(case, x, updates), strict=True):
        np.testing.assert_allclose(new, old + 1000.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", [case for case in CASES if SYMMETRY[case][1]])
@pytest.mark.parametrize("power", [-9, 7])
def test_the_result_grows_with_the_models_to_the_bit(case, power):
    x, updates = drawn(power % 16, np.float32)
    factor, length = 2.0**power, SYMMETRY[case][1]
    lengths = {}
    if isinstance(length, str):
        name, options = told(case, x)
        default = inspect.signature(REGISTRY[name].rule).parameters[length].default
        lengths = {length: options.get(length, default) * factor}
    grown = conforming(case, *transformed(lambda a: a * factor, x, updates), **lengths)
    assert same_bits(grown, [np.asarray(a * np.float32(factor)) for a in conforming(case, x, updates)])


@pytest.mark.parametrize("name", ALL)
def test_one_nan_client_in_flowers_messages_is_rejected_and_the_others_aggregated(name):
    x = [np.ones((2, 3), np.float32), np.array(0.5, np.float32)]
    steps = [1.0, 2.0, np.nan, 6.0, 7.0, 9.0]
    clients = {k: mover(step, 10 + k, 1.0 + k, k) for k, step in enumerate(steps)}
    grid, strategy, verdicts = InlineGrid(clients), REGISTRY[name](), []
    strategy.report = verdicts.append
    replies = grid.send_and_receive(strategy.configure_train(1, wire.record(x), ConfigRecord(), grid))
    arrays, metrics = strategy.aggregate_train(1, reversed(replies))
    honest = [
        Update([a + np.float32(step) for a in x], 10 + k, 1.0 + k, k) for k, step in enumerate(steps) if step == step
    ]
    assert same_bits(wire.arrays_of(arrays), aggregate(name, x, honest))
    assert metrics["clients"] == 5
    assert {v.node_id - 100: v.status for v in verdicts} == {k: "rejected" if k == 2 else "ok" for k in range(6)}


FLOWERS = [f"flwr.serverapp.strategy.{kind.__name__}" for kind in _FLOWER_WEIGHTS_BY]


@pytest.mark.parametrize("specification", [*ALL, "geometric-median:weighted=false", *FLOWERS])
def test_what_a_strategy_says_that_it_weighs_by_is_what_decides(specification):
    """The same models with other numbers of examples: another result exactly where it weighs by them."""

    def made(examples: list[int]) -> list[np.ndarray]:
        strategy, x = make_strategy(specification), vector(0.5, -0.5)
        grid = InlineGrid({k: mover(k**2, n, 1.0 + k, k) for k, n in enumerate(examples)})
        replies = grid.send_and_receive(strategy.configure_train(1, wire.record(x), ConfigRecord(), grid))
        return wire.arrays_of(strategy.aggregate_train(1, replies)[0])

    depends = not same_bits(made([100, 100, 100, 100, 100]), made([500, 1, 300, 20, 60]))
    strategy = make_strategy(specification)
    assert weights_by(strategy) == ("examples" if depends else "clients")
    assert weights_by(strategy) != "examples" or "num_examples" in needs_of(strategy)


def test_nothing_is_said_of_how_a_strategy_of_others_weighs():
    class Other(REGISTRY["fedavg"].__mro__[2]):  # Flower's FedAvg
        """It may do anything."""

    assert weights_by(Other()) is None
    assert weights_by(make_strategy("flwr.serverapp.strategy.FedAvg:weighted_by_key=train-loss")) is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("clients", [1, 2, 3])
def test_a_round_with_few_clients_kills_no_strategy(name, clients):
    grid, strategy = InlineGrid({k: mover(2.0, 10, 1.0, k) for k in range(clients)}), REGISTRY[name]()
    x = [np.full(3, 4, np.float32)]
    replies = grid.send_and_receive(strategy.configure_train(1, wire.record(x), ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, iter(replies))
    (new,) = conform(wire.arrays_of(arrays), x)
    assert ((new > 4) & (new <= 6)).all()  # all clients say 6


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_client(name, bad):
    updates = [Update(vector(1, 2), 10, 1.0, 0), Update(vector(1, bad), 10, 1.0, 7)]
    with pytest.raises(ValueError, match="client 7: array 0 holds values that are not finite"):
        aggregate(name, vector(0, 0), updates)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("update", "says"),
    [
        (Update(vector(1), 10, 1.0, 3), r"client 3: array 0 has shape \(1,\) where the model has \(2,\)"),
        (Update([np.ones((2, 1), np.float32)], 10, 1.0, 3), "client 3: array 0 has shape"),
        (Update(vector(1, 2) * 2, 10, 1.0, 3), "client 3: 2 arrays where the model has 1"),
        (Update([], 10, 1.0, 3), "client 3: 0 arrays"),
        (Update(vector(1, 2), 0, 1.0, 3), "client 3: num_examples must be > 0, not 0"),
        (Update(vector(1, 2), -5, 1.0, 3), "client 3: num_examples must be > 0"),
        (Update(vector(1, 2), 2.5, 1.0, 3), "client 3: num_examples must be an integer"),
        (Update(vector(1, 2), 10, 0.0, 3), "client 3: local_norm must be > 0"),
        (Update(vector(1, 2), 10, np.nan, 3), "client 3: local_norm"),
        (Update([np.array(["a", "b"])], 10, 1.0, 3), "client 3: array 0 has dtype"),
        (Update([[1, 2]], 10, 1.0, 3), "client 3: array 0 is a list"),
        (Update(vector(1), 10, 1.0), "client 1: array 0"),  # no number: its place
    ],
)
def test_a_bad_update_is_named_with_its_client(name, update, says):
    with pytest.raises(ValueError, match=says):
        aggregate(name, vector(0, 0), [Update(vector(1, 2), 10, 1.0, 0), update])


def test_wrong_calls_are_refused():
    x, update = vector(0), Update(vector(1), 1, 1.0)
    with pytest.raises(ValueError, match="unknown strategy 'fedmagic'; there are fedavg"):
        aggregate("fedmagic", x, [update])
    with pytest.raises(ValueError, match="no updates"):
        aggregate("fedavg", x, [])
    with pytest.raises(TypeError, match="fedavg has no option trim"):
        aggregate("fedavg", x, [update], trim=1)
    with pytest.raises(ValueError, match="client 0: local_norm is missing, which fednova needs"):
        aggregate("fednova", x, [Update(vector(1), 1)])


def test_updates_of_another_precision_are_brought_to_the_models():
    new = aggregate("weighted", vector(0, 0), [Update([np.array([1.0, 2.0])], 1), Update([np.array([3.0, 4.0])], 1)])
    assert new[0].dtype == np.float32
    assert new[0].tolist() == [2, 3]
