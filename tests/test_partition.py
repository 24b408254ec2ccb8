"""Properties of the split and of the numbers that describe it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task import partition
from task.errors import UserError


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
