"""Matching of hidden units: copies are found exactly, distances never grow, and the rule keeps the bits of the mean."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_grid import InlineGrid

from strategies import Update, aggregate
from strategies.matching import distance, match
from strategies.specify import make_strategy
from strategies.unit_order import canonical_order
from task import backend, wire
from task.errors import UserError
from task.structure import Group, Place, Structure
from task.units import structure_of

few = settings(max_examples=15)


def place(array, axis, size, copies=1, tiled=True):
    positions = np.arange(size * copies)
    return Place(array, axis, positions.reshape(copies, size).T if tiled else positions.reshape(size, copies))


def dense(*sizes):
    """Dense layers: a kernel and a bias each."""
    groups = tuple(
        Group(f"dense{i}", n, (place(2 * i, 1, n), place(2 * i + 1, 0, n), place(2 * i + 2, 0, n)))
        for i, n in enumerate(sizes[1:-1])
        if n > 1
    )
    shapes = [shape for a, b in pairwise(sizes) for shape in ((a, b), (b,))]
    return Structure(groups, (True,) * len(shapes)), shapes


def convolutional():
    """Two convolutions, BatchNorm's running mean (which does not count), Flatten of four pixels, a dense layer."""
    shapes = [(3, 3, 2, 6), (6,), (3, 3, 6, 5), (5,), (5,), (20, 3), (3,)]
    groups = (
        Group("one", 6, (place(0, 3, 6), place(1, 0, 6), place(2, 2, 6))),
        Group("two", 5, (place(2, 3, 5), place(3, 0, 5), place(4, 0, 5), place(5, 0, 5, copies=4))),
    )
    return Structure(groups, (True, True, True, True, False, True, True)), shapes


def residual():
    """A sum over two convolutions of six channels: the second stands on both axes of its kernel."""
    shapes = [(3, 3, 2, 6), (6,), (3, 3, 6, 6), (6,), (6, 4), (4,)]
    one = Group(
        "sum", 6, (place(0, 3, 6), place(1, 0, 6), place(2, 2, 6), place(2, 3, 6), place(3, 0, 6), place(4, 0, 6))
    )
    return Structure((one,), (True,) * 6), shapes


NETS = {"dense": dense(5, 7, 6, 3), "convolutional": convolutional(), "residual": residual()}


def draw(shapes, seed, dtype=np.float32):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype(dtype) for shape in shapes]


def shuffled(model, structure, seed):
    random = np.random.default_rng(seed)
    return structure.permuted(model, [random.permutation(group.size) for group in structure.groups])


def same_bits(one, other):
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def spread(models, structure):
    """Sum of squared distances to the mean, written down once more."""
    total = 0.0
    for i, counts in enumerate(structure.counted):
        if counts:
            stack = np.stack([model[i].astype(np.float64) for model in models])
            total += ((stack - stack.mean(0)) ** 2).sum()
    return total


def is_identity(orders):
    return all(np.array_equal(p, np.arange(len(p))) for p in orders)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@few
@given(seed=st.integers(0, 10**6), restarts=st.sampled_from([None, 1, 2]))
def test_a_permuted_copy_is_found_and_the_mean_is_the_original_to_the_bit(net, dtype, seed, restarts):
    structure, shapes = NETS[net]
    original = draw(shapes, seed, dtype)
    copies = [shuffled(original, structure, seed + k) for k in range(1, 4)]
    found = match([original, *copies], structure, restarts=restarts)
    assert all(same_bits(model, original) for model in found.models)
    assert found.after == 0
    assert is_identity(found.permutations[0])
    mean = aggregate(
        "matched", original, [Update(m, 1, client=k) for k, m in enumerate([original, *copies])], structure=structure
    )
    assert same_bits(mean, original)


@few
@given(seed=st.integers(0, 10**6), values=st.integers(1, 4))
def test_copies_of_a_model_with_few_different_values_are_found(seed, values):
    """Units that look alike until it is known what they are connected with."""
    structure, shapes = dense(4, 5, 4, 3)
    random = np.random.default_rng(seed)
    original = [random.integers(0, values + 1, shape).astype(np.float32) for shape in shapes]
    found = match([original, shuffled(original, structure, seed + 1)], structure, restarts=1)
    assert found.after <= found.before
    if len(np.unique(original[0], axis=1).T) == 5 and values > 2:
        assert found.after == 0


@pytest.mark.parametrize("net", NETS)
def test_equal_models_are_left_alone(net):
    structure, shapes = NETS[net]
    model = draw(shapes, 0)
    found = match([model, [a.copy() for a in model], model], structure)
    assert all(is_identity(p) for p in found.permutations)
    assert all(same_bits(m, model) for m in found.models)
    assert (found.before, found.after) == (0, 0)


@pytest.mark.parametrize("net", NETS)
@few
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), restarts=st.integers(1, 3))
def test_distances_never_grow_and_are_what_they_are_said_to_be(net, seed, count, restarts):
    structure, shapes = NETS[net]
    models = [draw(shapes, seed + k) for k in range(count)]
    before = [a.tobytes() for model in models for a in model]
    found = match(models, structure, restarts=restarts, seed=seed)
    assert [a.tobytes() for model in models for a in model] == before
    assert found.after <= found.before
    assert found.before == pytest.approx(spread(models, structure), rel=1e-9)
    assert found.after == pytest.approx(spread(found.models, structure), rel=1e-9)
    for model, own, orders in zip(found.models, models, found.permutations, strict=True):
        assert same_bits(model, structure.permuted(own, orders))
    assert is_identity(found.permutations[0])
    assert same_bits(found.models[0], models[0])


@pytest.mark.parametrize("net", NETS)
@few
@given(seed=st.integers(0, 10**6))
def test_what_was_matched_is_not_changed_any_more(net, seed):
    structure, shapes = NETS[net]
    once = match([draw(shapes, seed + k) for k in range(4)], structure, restarts=3)
    twice = match(once.models, structure, restarts=3)
    assert all(is_identity(p) for p in twice.permutations)
    assert twice.after == twice.before


@pytest.mark.parametrize("net", NETS)
@few
@given(seed=st.integers(0, 10**6))
def test_independent_models_come_closer_and_how_they_were_numbered_does_not_matter(net, seed):
    structure, shapes = NETS[net]
    models = [draw(shapes, seed + k) for k in range(4)]
    found = match(models, structure, restarts=3)
    renumbered = [models[0], *(shuffled(m, structure, seed + 9) for m in models[1:])]
    again = match(renumbered, structure, restarts=3)
    assert found.after < found.before
    assert again.after < again.before
    if means_nothing(models, structure) and means_nothing(renumbered, structure):
        assert again.after == pytest.approx(found.after, rel=1e-6)


def means_nothing(models, structure: Structure) -> bool:
    """Whether the given order of units is no better than a sorted one; small random nets may be alike by chance."""
    ordered = [structure.permuted(model, canonical_order(model, structure)) for model in models]
    return distance(models, structure) >= 0.99 * distance(ordered, structure)


def test_two_layers_are_matched_as_well_as_trying_all_orders():
    """Three units, one group: 6 orders for each of two models, the first kept."""
    structure, shapes = dense(4, 3, 2)
    for seed in range(20):
        one, two = draw(shapes, seed), draw(shapes, seed + 100)
        best = min(spread([one, structure.permuted(two, [np.array(p)])], structure) for p in permutations(range(3)))
        assert match([one, two], structure).after == pytest.approx(best, rel=1e-9)


def test_units_of_close_models_stay_where_they_are():
    structure, shapes = NETS["convolutional"]
    start = draw(shapes, 0)
    models = [[a + 0.05 * noise for a, noise in zip(start, draw(shapes, k), strict=True)] for k in range(1, 6)]
    found = match(models, structure)
    assert all(is_identity(p) for p in found.permutations)
    assert found.after == found.before


def test_arrays_that_do_not_count_move_along():
    structure, shapes = NETS["convolutional"]
    one = draw(shapes, 0)
    two = shuffled(one, structure, 5)
    two[4] = two[4] * 1e6 + 3  # a running mean of other data
    found = match([one, two], structure)
    assert found.after == 0
    np.testing.assert_array_equal(found.models[1][4], one[4] * np.float32(1e6) + 3)


@pytest.mark.parametrize("factor", [2.0**-100, 1.0, 2.0**100])
def test_sizes_of_weights_do_not_matter(factor):
    structure, shapes = NETS["dense"]
    models = [draw(shapes, k) for k in range(3)]
    scaled = [[(a * np.float32(factor)).astype(np.float32) for a in model] for model in models]
    plain, found = match(models, structure), match(scaled, structure)
    assert found.before == pytest.approx(plain.before * factor**2)
    assert found.after == pytest.approx(plain.after * factor**2, rel=0.05)  # other bits are sorted in another order
    assert found.after < found.before


def test_equal_calls_give_equal_orders_and_the_seed_draws_others():
    structure, shapes = dense(6, 12, 12, 3)
    models = [draw(shapes, k) for k in range(4)]
    first, second = (match(models, structure, restarts=2, seed=3) for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(first.models, second.models, strict=True))
    assert len({match(models, structure, restarts=2, seed=seed).after for seed in range(6)}) > 1


def test_more_restarts_are_never_worse():
    structure, shapes = dense(6, 12, 12, 3)
    models = [draw(shapes, k) for k in range(4)]
    after = [match(models, structure, restarts=restarts).after for restarts in (1, 2, 4, 8)]
    assert after == sorted(after, reverse=True)
    assert after[-1] < after[0]


def test_a_large_group_is_split_among_threads_and_found_all_the_same():
    structure, shapes = dense(3, 600, 2)
    one = draw(shapes, 0)
    two = [a + 1e-3 * noise for a, noise in zip(one, draw(shapes, 1), strict=True)]
    found = match([one, shuffled(two, structure, 1)], structure)
    assert found.after == pytest.approx(spread([one, two], structure), rel=0.01)


def test_a_model_without_hidden_units_and_a_single_model():
    structure = Structure((), (True, True))
    models = [draw([(3, 2), (2,)], k) for k in range(3)]
    found = match(models, structure)
    assert found.before == found.after > 0
    dense_net, shapes = NETS["dense"]
    alone = match([draw(shapes, 0)], dense_net)
    assert alone.before == alone.after == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: Structure(s.groups, s.counted[:-1]), "5 arrays, the models have 6"),
        (
            lambda s: Structure((Group("x", 9, (place(0, 1, 9),)),), s.counted),
            "group x: array 0 has 7 values along axis 1",
        ),
        (lambda s: Structure((Group("x", 7, (place(0, 2, 7),)),), s.counted), "group x: array 0 has no axis 2"),
        (lambda s: Structure((Group("x", 7, (place(9, 0, 7),)),), s.counted), "group x: array 9"),
        (lambda s: Structure((Group("x", 5, (place(0, 1, 7),)),), s.counted), "group x"),
    ],
)
def test_a_wrong_structure_is_one_clear_line(change, says):
    structure, shapes = NETS["dense"]
    with pytest.raises(ValueError, match=says) as caught:
        aggregate(
            "matched", draw(shapes, 0), [Update(draw(shapes, k), 1) for k in range(2)], structure=change(structure)
        )
    assert "\n" not in str(caught.value)


def test_wrong_calls_are_refused():
    structure, shapes = NETS["dense"]
    with pytest.raises(ValueError, match="no models"):
        match([], structure)
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        match([draw(shapes, 0)], structure, restarts=0)
    with pytest.raises(ValueError, match="model 1 has arrays of other shapes"):
        match([draw(shapes, 0), draw(NETS["residual"][1], 0)], structure)


# The rule -----------------------------------------------------------------------------------------------------------


def test_without_a_structure_it_is_the_plain_mean():
    _, shapes = NETS["dense"]
    updates = [Update(draw(shapes, k), 10 + k) for k in range(3)]
    assert same_bits(aggregate("matched", draw(shapes, 9), updates), aggregate("fedavg", draw(shapes, 9), updates))


@pytest.mark.parametrize("net", NETS)
def test_models_from_one_start_give_the_bits_of_fedavg(net):
    structure, shapes = NETS[net]
    start = draw(shapes, 0)
    updates = [
        Update([a + np.float32(0.02) * noise for a, noise in zip(start, draw(shapes, k), strict=True)], 5, client=k)
        for k in range(1, 5)
    ]
    assert same_bits(aggregate("matched", start, updates, structure=structure), aggregate("fedavg", start, updates))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("numbered", [True, False])
@few
@given(seed=st.integers(0, 10**6), random=st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter_to_the_bit(net, numbered, seed, random):
    structure, shapes = NETS[net]
    x = draw(shapes, seed)
    updates = [Update(draw(shapes, seed + k), 10, client=k if numbered else None) for k in range(1, 5)]
    one = aggregate("matched", x, updates, structure=structure, restarts=2)
    other = aggregate("matched", x, random.sample(updates, len(updates)), structure=structure, restarts=2)
    assert same_bits(one, other)


def test_the_result_has_the_units_of_the_client_with_the_lowest_number():
    structure, shapes = NETS["dense"]
    first = draw(shapes, 0)
    copy = shuffled(first, structure, 1)
    assert same_bits(
        aggregate("matched", first, [Update(first, 1, client=4), Update(copy, 1, client=2)], structure=structure), copy
    )


def test_the_mean_of_permuted_keras_models_computes_the_same_function():
    keras, _ = backend.load()
    layers = keras.layers
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = layers.Add()([y, layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(y))])
    y = layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu")(y)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    structure, arrays = structure_of(model), model.get_weights()
    copies = [arrays, *(shuffled(arrays, structure, k) for k in range(4))]
    mean = aggregate("matched", arrays, [Update(c, 1, client=k) for k, c in enumerate(copies)], structure=structure)
    assert same_bits(mean, arrays)


# In a comparison ----------------------------------------------------------------------------------------------------


def test_the_structure_is_made_for_the_rule_that_wants_it_and_for_no_other():
    structure, _ = NETS["dense"]
    made = []

    def make():
        made.append(1)
        return structure

    assert make_strategy("fedavg", None, make).options == {}
    assert made == []
    assert make_strategy("matched:restarts=3,seed=7", None, make).options == {
        "structure": structure,
        "restarts": 3,
        "seed": 7,
    }
    assert made == [1]
    assert make_strategy("matched").options == {"structure": None}


def test_a_structure_cannot_be_written_as_an_option():
    with pytest.raises(UserError, match="structure is the model's own"):
        make_strategy("matched:structure=1")


def test_one_round_of_clients_with_different_starts_through_flower():
    """The Flower strategy gives what the rule gives."""
    structure, shapes = NETS["dense"]
    original = draw(shapes, 0)
    strategy = make_strategy("matched", None, lambda: structure)

    def client(k):
        return lambda arrays, config: (shuffled(original, structure, k), 10, {"client": k})

    result = strategy.start(InlineGrid({k: client(k) for k in range(3)}), wire.record(original), num_rounds=1)
    assert same_bits(wire.arrays_of(result.arrays), shuffled(original, structure, 0))
