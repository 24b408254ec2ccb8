"""Properties of the split and of the numbers that describe it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task import partition
from task.errors import UserError
from task.scenario import scenario_of


@st.composite
def tables(draw):
    """(labels in any order, clients): every class has at least as many examples as there are clients."""
    clients = draw(st.integers(1, 9))
    counts = draw(st.lists(st.integers(clients, 40), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 2**32))).permutation(labels), clients


@settings(max_examples=60)
@given(tables(), st.integers(0, 2**31))
def test_shards_are_disjoint_cover_all_and_are_balanced(table, seed):
    labels, clients = table
    shards = partition.stratified(labels, clients, seed)
    assert len(shards) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(len(labels)))
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    counts = partition.label_counts([labels[shard] for shard in shards], labels.max() + 1)
    assert np.ptp(counts, axis=0).max() <= 1
    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(labels))


def test_the_seed_and_nothing_else_draws_the_split():
    labels = np.arange(200) % 10
    first, again, other = (partition.stratified(labels, 4, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_too_many_clients_names_the_largest_number_possible():
    labels = np.array([0] * 9 + [7] * 3)
    assert len(partition.stratified(labels, 3, 0)) == 3
    with pytest.raises(UserError, match=r"class 7 has 3 examples; at most 3 clients"):
        partition.stratified(labels, 4, 0)


# Scenarios ------------------------------------------------------------------------------------------------------------


def cut(labels, clients, seed, text):
    return partition.split(np.asarray(labels), clients, seed, scenario_of(text))


def balanced(classes, each):
    return np.repeat(np.arange(classes), each)


def counts_of(labels, shards):
    return partition.label_counts([labels[shard] for shard in shards], labels.max() + 1)


SKEWED = ("quantity-skew:least=2", "label-skew:alpha=0.5,least=2", "pathological:classes=3")


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(5, 7), st.integers(12, 40), st.integers(0, 2**40), st.sampled_from(SKEWED))
def test_every_cut_is_disjoint_complete_and_a_function_of_the_seed(clients, classes, each, seed, text):
    clients = max(clients, 3) if text.startswith("pathological") else clients
    labels = np.random.default_rng(seed).permutation(balanced(classes, each))
    shards = cut(labels, clients, seed, text)
    assert len(shards) == clients
    assert all(shard.dtype == np.int64 and (np.diff(shard) > 0).all() for shard in shards)
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(len(labels)))
    assert min(map(len, shards)) >= 2
    for shard, again in zip(shards, cut(labels, clients, seed, text + "+uneven-work"), strict=True):
        np.testing.assert_array_equal(shard, again)


@pytest.mark.parametrize("text", SKEWED)
def test_another_seed_cuts_otherwise(text):
    labels = balanced(5, 40)
    one, other = cut(labels, 4, 0, text), cut(labels, 4, 1, text)
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("alpha", "expected"), [(0.05, 1.05 / 1.2), (0.5, 1.5 / 3), (1.0, 2 / 5), (20.0, 21 / 81)])
def test_shares_are_dirichlet(alpha, expected):
    """Of Dirichlet(alpha, ..., alpha) over m clients, E[sum p_i^2] = (alpha + 1) / (m alpha + 1); here m = 4."""
    labels = balanced(150, 60)
    shares = counts_of(labels, cut(labels, 4, 0, f"label-skew:alpha={alpha},least=1")) / 60
    classes = (shares**2).sum(axis=0)  # one draw a class
    sizes = [np.array(list(map(len, cut(np.zeros(404), 4, seed, f"quantity-skew:alpha={alpha},least=1"))))
             for seed in range(60)]  # fmt: skip
    quantities = np.array([(((size - 1) / 400) ** 2).sum() for size in sizes])
    for drawn in (classes, quantities):
        error = drawn.std() / np.sqrt(len(drawn))
        assert abs(drawn.mean() - expected) < 4 * error + 0.003  # whole examples: at most about (m / 2) / 60^2 more


@pytest.mark.parametrize("alpha", ["1e12", "1e308"])
def test_a_huge_alpha_is_equal_shares(alpha):
    labels = balanced(6, 40)
    counts = counts_of(labels, cut(labels, 4, 3, f"label-skew:alpha={alpha}"))
    assert abs(counts - 10).max() <= 1
    assert [len(shard) for shard in cut(labels, 4, 3, f"quantity-skew:alpha={alpha}")] == [60] * 4


def test_a_tiny_alpha_gives_a_class_to_one_client_and_the_rest_to_one():
    labels = balanced(8, 50)
    counts = counts_of(labels, cut(labels, 2, 0, "label-skew:alpha=1e-6"))
    assert set(counts.ravel()) == {0, 50}
    assert sorted(map(len, cut(labels, 4, 0, "quantity-skew:alpha=1e-6,least=7"))) == [7, 7, 7, 379]


def test_draws_are_repeated_until_everyone_has_enough(recwarn):
    """One draw of four classes for four clients is a permutation with probability 4!/4^4 = 0.09; 11 fail in 0.34."""
    labels = balanced(4, 25)
    for seed in range(12):
        counts = counts_of(labels, cut(labels, 4, seed, "label-skew:alpha=0.001,least=20"))
        assert counts.sum(axis=1).min() >= 20
    assert not recwarn.list


@pytest.mark.parametrize("text", ["quantity-skew", "label-skew", "pathological:classes=3"])
def test_a_shard_is_a_random_sample_of_its_classes(text):
    """Were examples dealt in their order, the mean place of a client's examples in their class would differ widely."""
    labels = balanced(3, 2000)
    for shard in cut(labels, 4, 5, text):
        place = shard % 2000
        assert abs(place.mean() - 999.5) < 4 * 2000 / np.sqrt(12 * len(place))  # uniform: sd = 2000 / sqrt(12)


def test_unequal_quantities_are_alike_in_their_labels():
    labels = balanced(5, 300)
    shards = cut(labels, 5, 0, "quantity-skew:least=50")
    assert np.ptp(list(map(len, shards))) > 100
    assert partition.chi_square_p(counts_of(labels, shards)) > 0.01


@settings(max_examples=60)
@given(st.integers(2, 9), st.integers(1, 12), st.data())
def test_pathological_clients_hold_exactly_so_many_classes(classes, clients, data):
    held = data.draw(st.integers(-(-classes // clients), classes))
    labels = balanced(classes, 30)
    counts = counts_of(labels, cut(labels, clients, data.draw(st.integers(0, 99)), f"pathological:classes={held}"))
    assert ((counts > 0).sum(axis=1) == held).all()
    holders = (counts > 0).sum(axis=0)
    assert holders.min() >= 1
    assert np.ptp(holders) <= 1
    assert all(np.ptp(column[column > 0]) <= 1 for column in counts.T)


def test_the_seed_draws_who_holds_which_classes():
    labels = balanced(10, 20)
    held = {str(counts_of(labels, cut(labels, 5, seed, "pathological")) > 0) for seed in range(5)}
    assert len(held) == 5


@pytest.mark.parametrize("text", (*SKEWED[:2], "pathological:classes=1"))
def test_classes_that_nobody_has_are_no_matter(text):
    labels = np.random.default_rng(0).permutation(np.repeat([3, 7], 40)).astype(np.uint8)
    shards = cut(labels, 3, 0, text)
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(80))


@pytest.mark.parametrize(
    ("text", "clients", "says"),
    [
        ("quantity-skew", 5, "quantity-skew: 5 clients with at least 10 examples each need 50, there are 40; give"),
        ("label-skew:least=21", 2, "label-skew: 2 clients with at least 21 examples each need 42, there are 40"),
        ("label-skew:alpha=1e-9,least=10", 4, "label-skew: alpha=1e-09 leaves some of 4 clients fewer than 10"),
        ("pathological:classes=5", 2, "classes=5 is more than the 4 classes there are"),
        ("pathological:classes=1", 3, "3 clients with 1 of 4 classes each leave some to nobody; give classes=2 or 4"),
        ("pathological:classes=4", 11, "class 0 has 10 examples for 11 clients that hold it"),
        ("iid", 11, "at most 10 clients"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_one_line(text, clients, says):
    labels = (
        np.array([0] * 38 + [1, 1]) if "1e-9" in text else balanced(4, 10)
    )  # 38 of one class: three get next to none
    with pytest.raises(UserError) as caught:
        cut(labels, clients, 0, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_label_counts_have_a_column_for_absent_classes():
    counts = partition.label_counts([np.array([0, 0, 2]), np.array([2], np.uint8)], 4)
    np.testing.assert_array_equal(counts, [[2, 0, 1, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ([[80, 80, 0], [80, 80, 0]], 1, 1),  # equal shares; the class that nobody has is left out
        ([[50, 9, 3]], 1, 1),  # one shard
        ([[50], [3]], 1, 1),  # one class
        ([[100, 0], [0, 100]], 0, 1e-20),
        ([[30, 20], [20, 30], [25, 25]], 0.13, 0.14),  # statistic 4, two degrees of freedom: exp(-2)
    ],
)
def test_chi_square(counts, low, high):
    assert low <= partition.chi_square_p(np.array(counts)) <= high
