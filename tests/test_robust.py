"""Rules against attackers: values computed by hand, closed forms, one client at 1e30, and too few clients."""

import hashlib
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from conftest import on_the_oldest_processor
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Update, aggregate
from strategies.kernels import blend, squared_distances, squared_distances_around, trimmed_mean
from strategies.kernels.distances import BLOCK
from strategies.kernels.networks import trimming_network
from strategies.krum import krum_scores
from strategies.specify import make_strategy
from task.errors import UserError

few = settings(max_examples=40)
ROBUST = ["trimmed-mean", "krum", "multi-krum", "geometric-median", "centered-clipping"]
PLANE = [(1, 0), (0, 0), (0, 2), (3, 3), (10, 10)]


def points(values, dtype=np.float64, examples=1):
    return [Update([np.array(value, dtype)], examples) for value in values]


def bits(arrays):
    return [(a.tobytes(), a.dtype, a.shape) for a in arrays]


# Trimmed mean -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 10))
def test_trimming_network_keeps_the_middle_of_all_zeros_and_ones(n):
    # The zero-one principle: a network that is right for these is right for all values.
    for trim in range((n - 1) // 2 + 1):
        for wires in product((0, 1), repeat=n):
            values = list(wires)
            for c in trimming_network(n, trim):
                low, high = sorted((values[c.low], values[c.high]))
                values[c.low], values[c.high] = (low if c.keep_low else None), (high if c.keep_high else None)
            assert sorted(values[trim : n - trim]) == sorted(wires)[trim : n - trim]


def exact_trimmed(column, trim, dtype):
    """The mean of what is kept, from fractions, rounded once: the nearest of three neighbours."""
    kept = [Fraction(float(v)) for v in sorted(column)][trim : len(column) - trim]
    exact = sum(kept) / len(kept)
    near = dtype(float(exact))
    around = [near, np.nextafter(near, dtype(-np.inf)), np.nextafter(near, dtype(np.inf))]
    return min(abs(Fraction(float(v)) - exact) for v in around), exact


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("n", "trim"), [(5, 1), (6, 1), (20, 3), (33, 2), (40, 12)])
def test_trimmed_mean_is_the_exact_mean_of_those_kept_rounded_once(dtype, n, trim):
    random = np.random.default_rng(n)
    wild = np.ldexp(random.uniform(-2, 2, (n, 60)), random.integers(-14, 13, (n, 60))).astype(dtype)
    wild[:trim, ::2] = np.finfo(dtype).max  # an attacker
    for column, got in zip(wild.T, trimmed_mean(list(wild), trim), strict=True):
        least, exact = exact_trimmed(column, trim, dtype)
        assert abs(Fraction(float(got)) - exact) == least


def test_trimmed_mean_of_values_too_far_apart_for_one_pass():
    values = np.array([[1e30], [-1e30], [1e-30], [3e-30], [3e38], [-3e38]], np.float32)
    exact = sum(Fraction(float(v)) for v in values[2:4, 0]) / 4  # 1e30 and -1e30 are kept, and cancel
    assert trimmed_mean(list(values), 1)[0] == np.float32(float(exact))


def test_trimmed_mean_of_integers_bools_and_any_shape():
    x = [np.array([v, 9 - v], np.int64) for v in (2, 3, 4, 5, 1000)]
    assert trimmed_mean(x, 1).tolist() == [4, 5]  # (3 + 4 + 5) / 3, (6 + 5 + 4) / 3
    assert trimmed_mean([np.array(v) for v in (True, False, True, True, False)], 1).tolist() is True  # 2 of 3
    for shape in ((), (0, 3), (2, 3)):
        for dtype in (np.float32, np.float64, ">f4"):
            got = trimmed_mean([np.full(shape, v, dtype) for v in (1, 9, 2, 3, -7)], 1)
            assert (got.shape, got.dtype) == (shape, np.dtype(dtype))
            assert (got == 2).all()


@few
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_nothing_trimmed_is_fedavg_and_all_but_the_middle_fedmedian_to_the_bit(data, dtype):
    values = st.floats(-(2.0**90), 2.0**90, width=np.dtype(dtype).itemsize * 8)
    models = data.draw(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=9))
    x, updates = [np.zeros(2, dtype)], points(models, dtype)
    n = len(models)
    assert bits(aggregate("trimmed-mean", x, updates, trim=0)) == bits(aggregate("fedavg", x, updates))
    if n > 2:
        middle = aggregate("trimmed-mean", x, updates, trim=(n - 1) // 2)
        assert bits(middle) == bits(aggregate("fedmedian", x, updates))


# Distances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_distances_are_right_for_models_near_each_other_and_far_from_zero(dtype):
    random = np.random.default_rng(0)
    size = BLOCK + 37  # more than one block, and coordinates left over
    models = [
        [(1000 + random.standard_normal(size)).astype(dtype), np.array(i, dtype), np.array([10**9 * i])]
        for i in range(4)
    ]
    flat = [np.concatenate([m[0], m[1].reshape(1)]).astype(np.longdouble) for m in models]  # no counters
    expected = [[float(((a - b) ** 2).sum()) for b in flat] for a in flat]
    got = squared_distances(models)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert np.array_equal(got, got.T)
    order = [2, 0, 3, 1]
    assert np.array_equal(squared_distances([models[i] for i in order]), got[np.ix_(order, order)])
    factors = [0.5, 0.0, 0.25, 1e-3]
    z = flat[1] + sum(f * (model - flat[1]) for f, model in zip(factors, flat, strict=True))
    around = squared_distances_around(models[1], models, factors)
    np.testing.assert_allclose(around, [float(((m - z) ** 2).sum()) for m in flat], rtol=1e-12)
    tolerance = 2 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(blend(models[1], models, factors)[0], z[:-1].astype(float), rtol=tolerance)


def test_blend_leaves_what_nobody_moved_and_rounds_integers():
    base = [np.array([2**62 + 1, 5]), np.array([-0.0, 1.0], np.float32), np.zeros((0, 2), np.float32)]
    moved = [np.array([2**62 + 1, 8]), np.array([-0.0, 2.0], np.float32), np.zeros((0, 2), np.float32)]
    new = blend(base, [moved, base], [0.5, 0.25])
    assert new[0].tolist() == [2**62 + 1, 6]  # 5 + 3 / 2, half to even
    assert new[1].tobytes() == np.array([-0.0, 1.5], np.float32).tobytes()
    assert new[2].shape == (0, 2)


def many_results():
    """A digest of what the new kernels give."""
    random, digest = np.random.default_rng(5), hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for n in (5, 34):
            models = [[(random.standard_normal(1003) * 10.0 ** random.integers(-9, 9)).astype(dtype)] for _ in range(n)]
            factors = random.uniform(0, 1 / n, n).tolist()
            digest.update(trimmed_mean([model[0] for model in models], 2).tobytes())
            digest.update(squared_distances(models).tobytes())
            digest.update(squared_distances_around(models[0], models, factors).tobytes())
            digest.update(blend(models[0], models, factors)[0].tobytes())
    return digest.hexdigest()


def test_another_processor_gives_the_same_bits():
    assert on_the_oldest_processor("test_robust", "many_results") == many_results()


# Krum ---------------------------------------------------------------------------------------------------------------


def test_krum_scores_by_hand():
    """B (1, 0), A (0, 0), C (0, 2), D (3, 3), E (10, 10); f = 1, so the 5 - 1 - 2 = 2 closest count.

    Squares: AB 1, AC 4, AD 18, AE 200, BC 5, BD 4 + 9 = 13, BE 81 + 100 = 181, CD 9 + 1 = 10, CE 100 + 64 = 164,
    DE 49 + 49 = 98. A: 1 + 4, B: 1 + 5, C: 4 + 5, D: 10 + 13, E: 98 + 164.
    """
    updates = points(PLANE)
    distances = squared_distances([update.arrays for update in updates])
    assert krum_scores(distances, 1) == [6, 5, 9, 23, 262]
    assert krum_scores(distances, 2) == [1, 1, 4, 10, 98]
    x = [np.zeros(2)]
    assert aggregate("krum", x, updates)[0].tolist() == [0, 0]
    assert aggregate("multi-krum", x, updates)[0].tolist() == [1, 1.25]  # A, B, C, D
    assert aggregate("multi-krum", x, updates, keep=3)[0].tolist() == [1 / 3, 2 / 3]
    assert bits(aggregate("multi-krum", x, updates, keep=1)) == bits(aggregate("krum", x, updates))
    assert bits(aggregate("multi-krum", x, updates, attackers=0)) == bits(aggregate("fedavg", x, updates))


def test_krum_chooses_the_same_client_far_from_zero():
    """|a|^2 + |b|^2 - 2 ab in float32 has steps of 16 at 1e4, and cannot tell these five apart."""
    far = [(a + 10_000, b - 10_000) for a, b in PLANE]
    assert aggregate("krum", [np.zeros(2, np.float32)], points(far, np.float32))[0].tolist() == [10_000, -10_000]


def test_krum_does_not_count_counters():
    counts = [1, 10**6, 3, 4, 5]
    updates = [Update([np.array(p, float), np.array(k)], 1) for p, k in zip(PLANE, counts, strict=True)]
    assert [a.tolist() for a in aggregate("krum", [np.zeros(2), np.array(0)], updates)] == [[0, 0], 10**6]


@pytest.mark.parametrize("seed", range(3))
def test_multi_krum_selects_whom_flower_selects(seed):
    random = np.random.default_rng(seed)
    models = [random.standard_normal(50) for _ in range(9)]
    contents = [RecordDict({"arrays": ArrayRecord([model])}) for model in models]
    chosen = select_multikrum(contents, num_malicious_nodes=2, num_nodes_to_select=4)
    mean = np.mean([content["arrays"].to_numpy_ndarrays()[0] for content in chosen], axis=0)
    got = aggregate("multi-krum", [np.zeros(50)], points(models), attackers=2, keep=4)[0]
    np.testing.assert_allclose(got, mean, rtol=0, atol=1e-15)


# Geometric median ---------------------------------------------------------------------------------------------------


def median_of(x, values, examples=None, **options):
    updates = [Update([np.array(v, float)], n) for v, n in zip(values, examples or [1] * len(values), strict=True)]
    return aggregate("geometric-median", [np.array(x, float)], updates, **options)[0]


def test_one_weiszfeld_step_by_hand():
    """From x = 0 the pulls are 1 / 1 and 1 / 2: z = (1 (1, 0) + .5 (0, 2)) / 1.5; with n = (1, 4), 1 and 2."""
    two = [(1, 0), (0, 2)]
    np.testing.assert_allclose(median_of((0, 0), two, iterations=1), [2 / 3, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(median_of((0, 0), two, [1, 4], iterations=1), [1 / 3, 4 / 3], rtol=1e-15)
    equal = median_of((0, 0), two, [1, 4], iterations=1, weighted=False)
    np.testing.assert_allclose(equal, [2 / 3, 2 / 3], rtol=1e-15)


def test_geometric_median_of_points_on_a_line_is_the_one_in_the_middle():
    line = [(0, 0), (1, 2), (4, 8)]
    np.testing.assert_allclose(median_of((9, 9), line, iterations=300), [1, 2], atol=1e-5)
    # Who has more than half of the weight has the median.
    np.testing.assert_allclose(median_of((9, 9), line, [1, 1, 3], iterations=300), [4, 8], atol=1e-5)
    np.testing.assert_allclose(median_of((9, 9), line, [1, 1, 3], iterations=300, weighted=False), [1, 2], atol=1e-5)


@pytest.mark.parametrize("offset", [0, 1e4])
def test_geometric_median_of_a_triangle_is_its_fermat_point(offset):
    """From (0, 1 / sqrt 3) all of (-1, 0), (1, 0), (0, 4) are seen under 120 degrees; their mean is (0, 4 / 3)."""
    triangle = [(offset - 1, offset), (offset + 1, offset), (offset, offset + 4)]
    found = median_of((offset + 3, offset - 2), triangle, iterations=200)
    np.testing.assert_allclose(found - offset, [0, 3**-0.5], rtol=0, atol=1e-9)


# Centered clipping --------------------------------------------------------------------------------------------------


def test_clipping_by_hand():
    x, updates = [np.zeros(2)], points([(1, 0), (0, 30)])
    assert aggregate("centered-clipping", x, updates, radius=3)[0].tolist() == [0.5, 1.5]  # (1, 0) and (0, 3)
    v = np.array([0.5, 1.5])
    again = v + ((np.array([1, 0]) - v) + 3 * (np.array([0, 30]) - v) / np.hypot(0.5, 28.5)) / 2
    two = aggregate("centered-clipping", x, updates, radius=3, iterations=2)[0]
    np.testing.assert_allclose(two, again, rtol=1e-14)
    line = points([[1], [2], [-100]])  # the median length is 2: 1 + 2 - 2
    np.testing.assert_allclose(aggregate("centered-clipping", [np.zeros(1)], line)[0], [1 / 3], rtol=1e-14)


@few
@given(
    st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=1, max_size=8),
    st.integers(1, 4),
    st.floats(2.0**-10, 2.0**20),
)
def test_clipping_goes_no_further_than_the_radius_in_each_iteration(models, iterations, radius):
    x = [np.array([3, -2, 0.5])]
    new = aggregate("centered-clipping", x, points(models), radius=radius, iterations=iterations)[0]
    assert np.linalg.norm(new - x[0]) <= iterations * radius * (1 + 1e-12) + 1e-14
    wide = aggregate("centered-clipping", x, points(models), radius=1e31, iterations=iterations)
    assert bits(wide) == bits(aggregate("fedavg", x, points(models)))


@pytest.mark.parametrize("name", ["geometric-median", "centered-clipping"])
def test_clients_at_one_distance_may_come_in_any_order(name):
    """Their order is their bytes' then; in float64, as a float32 would mostly hide in which order was summed."""
    random = np.random.default_rng(3)
    length = random.standard_normal(40)
    updates = points([length * random.choice([-1, 1], 40) for _ in range(5)])
    x, options = [np.zeros(40)], {"iterations": 3, **({"radius": 2.0} if name == "centered-clipping" else {})}
    expected = bits(aggregate(name, x, updates, **options))
    for _ in range(20):
        assert bits(aggregate(name, x, [updates[i] for i in random.permutation(5)], **options)) == expected


# Attackers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [1e30, -1e30])
@pytest.mark.parametrize("name", ROBUST)
def test_one_client_at_1e30_among_five_breaks_no_robust_rule(name, attack):
    random = np.random.default_rng(1)
    x = [np.ones((40, 30), np.float32), np.zeros(3, np.float32)]
    honest = [[a + 1 + random.standard_normal(a.shape).astype(np.float32) for a in x] for _ in range(4)]
    updates = [Update(model, 10) for model in [*honest, [np.full_like(a, attack) for a in x]]]
    new = aggregate(name, x, updates)
    assert not np.abs(aggregate("fedavg", x, updates)[0]).max() < 1e29  # what the mean makes of it
    flat = [np.concatenate([np.ravel(a) for a in model]).astype(float) for model in (new, x, *honest)]
    result, start, rows = flat[0], flat[1], np.array(flat[2:])
    spread = np.linalg.norm(rows - rows.mean(axis=0), axis=1).max()
    lengths = np.linalg.norm(rows - start, axis=1)
    if name == "krum":
        assert any(np.array_equal(result, row) for row in rows)
    elif name == "centered-clipping":  # the median length of five is at most the largest of the honest four
        assert np.linalg.norm(result - start) <= lengths.max()
    elif name == "geometric-median":  # 2 (1 - a) / (1 - 2 a) times the spread with a = 1/5 (arXiv:1308.1334, lemma 2.1)
        assert np.linalg.norm(result - rows.mean(axis=0)) <= 1.6 / 0.6 * spread
    else:
        assert (result >= rows.min(axis=0)).all()
        assert (result <= rows.max(axis=0)).all()


def test_who_lies_about_examples_moves_the_weighted_geometric_median_only():
    values = [(0, 0), (1, 0), (0, 1), (1000, 0)]
    lied = [1, 1, 1, 10**6]
    assert median_of((0, 0), values, lied, iterations=100)[0] > 999
    assert median_of((0, 0), values, lied, iterations=100, weighted=False)[0] < 2


# Too few clients, and options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "options", "says"),
    [
        ("trimmed-mean", 4, {"trim": 2}, "trimmed-mean with trim=2 needs at least 5 updates, not 4"),
        ("trimmed-mean", 2, {}, "trimmed-mean with its default options needs at least 3 updates, not 2"),
        ("krum", 3, {"attackers": 1}, "krum with attackers=1 needs at least 4 updates, not 3"),
        ("multi-krum", 4, {"attackers": 2}, "multi-krum with attackers=2 needs at least 5 updates, not 4"),
        ("multi-krum", 4, {"keep": 6}, "multi-krum with keep=6 needs at least 6 updates, not 4"),
    ],
)
def test_aggregate_says_how_many_updates_the_options_need(name, n, options, says):
    with pytest.raises(ValueError, match=says):
        aggregate(name, [np.zeros(1)], points([[i] for i in range(n)]), **options)


@pytest.mark.parametrize(
    ("name", "options", "values", "expected"),
    [
        ("trimmed-mean", {"trim": 2}, [0, 1, 3, 90], 2),  # one at each side is left out
        ("trimmed-mean", {"trim": 2}, [1, 3], 2),
        ("krum", {"attackers": 2}, [0, 8, 9, 20], 8),  # the closest one counts: 64, 1, 1, 121; of two equals the bytes
        ("krum", {"attackers": 2}, [5], 5),
        ("multi-krum", {"attackers": 2}, [0, 8, 9, 20], 8.5),  # n - f = 2 of them
        ("multi-krum", {"attackers": 3}, [4, 4], 4),
        ("multi-krum", {"keep": 3}, [4, 6], 5),
    ],
)
def test_a_round_with_too_few_clients_does_what_it_can(name, options, values, expected):
    shell = make_strategy(name + ":" + ",".join(f"{k}={v}" for k, v in options.items()))
    new = type(shell).rule([np.zeros(1)], iter(points([[v] for v in values])), **shell.options)
    assert new[0].tolist() == [expected]


@pytest.mark.parametrize(
    ("specification", "says"),
    [
        ("trimmed-mean:trim=-1", "trim must be a whole number >= 0, not -1"),
        ("trimmed-mean:trim=1.5", "trim must be a whole number >= 0, not 1.5"),
        ("trimmed-mean:trim=true", "trim must be a whole number >= 0, not True"),
        ("trimmed-mean:trim=null", "trim must be a whole number >= 0, not None"),
        ("krum:attackers=few", "attackers must be a whole number >= 0, not 'few'"),
        ("multi-krum:keep=0", "keep must be a whole number >= 1, not 0"),
        ("geometric-median:iterations=0", "iterations must be a whole number >= 1, not 0"),
        ("geometric-median:smoothing=0", "smoothing must be a number > 0 and finite, not 0"),
        ("centered-clipping:radius=-2", "radius must be a number > 0 and finite, not -2"),
        ("centered-clipping:iterations=0", "iterations must be a whole number >= 1, not 0"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(specification, says):
    with pytest.raises(UserError) as refused:
        make_strategy(specification)
    assert str(refused.value).endswith(says)
    assert "\n" not in str(refused.value)


def test_options_reach_the_rule():
    shell = make_strategy("multi-krum:attackers=1,keep=3")
    assert shell.options == {"attackers": 1, "keep": 3}
    assert make_strategy("centered-clipping:radius=null").options == {"radius": None}
