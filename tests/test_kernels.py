"""Kernels against NumPy, exact fractions, and themselves in another order, in pieces, on another processor."""

import hashlib
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import product
from statistics import median as middle_of

import numpy as np
import pytest
from conftest import on_the_oldest_processor
from hypothesis import given
from hypothesis import strategies as st

from strategies.kernels import Sum, all_finite, median, weighted_mean
from strategies.kernels.arrays import GRAIN
from strategies.kernels.networks import middle_network

FLOATS = [np.float32, np.float64]


def bits(array):
    return array.tobytes(), array.dtype, array.shape


def nearest(number, dtype):
    """The value of a floating dtype nearest to a fraction, ties to even, from integers alone."""
    info = np.finfo(dtype)
    if number == 0:
        return dtype(0)
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    rounded = round(size / unit) * unit  # Python rounds fractions half to even
    value = float(rounded) if rounded <= Fraction(float(info.max)) else float("inf")
    return dtype(value if number > 0 else -value)


def exact_sum(columns, weights):
    return [
        sum(Fraction(float(x)) * Fraction(w) for x, w in zip(c, weights, strict=True))
        for c in zip(*columns, strict=True)
    ]


def same_values(got, expected):
    return np.array_equal(got, np.array(expected, got.dtype))


# Median


@pytest.mark.parametrize("n", range(1, 10))
def test_middle_network_selects_the_middle_of_all_zeros_and_ones(n):
    # The zero-one principle: a network that is right for these is right for all values.
    for wires in product((0, 1), repeat=n):
        values = list(wires)
        for c in middle_network(n):
            low, high = sorted((values[c.low], values[c.high]))
            values[c.low], values[c.high] = (low if c.keep_low else None), (high if c.keep_high else None)
        assert [values[(n - 1) // 2], values[n // 2]] == [sorted(wires)[(n - 1) // 2], sorted(wires)[n // 2]]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [*range(1, 41), 100, 128, 129, 200])
def test_median_has_numpys_bits(n, dtype):
    x = np.random.default_rng(n).standard_normal((n, 3, 45)).astype(dtype)
    assert bits(median(list(x))) == bits(np.median(x, axis=0))


def test_median_has_numpys_bits_at_all_magnitudes_and_next_to_equal_values():
    rng = np.random.default_rng(0)
    for dtype, exponents in ((np.float32, (-149, 126)), (np.float64, (-1074, 1022))):
        wild = np.ldexp(rng.uniform(1, 2, (6, 1000)), rng.integers(*exponents, (6, 1000))).astype(dtype)
        close = (1 + rng.integers(0, 4, (6, 1000)) * np.finfo(dtype).eps).astype(dtype)
        for x in (wild, close):
            for n in (5, 6):
                assert bits(median(list(x[:n]))) == bits(np.median(x[:n], axis=0))


@given(st.data(), st.sampled_from(FLOATS))
def test_median_does_not_depend_on_the_order(data, dtype):
    values = st.floats(width=np.dtype(dtype).itemsize * 8, allow_nan=False)
    rows = data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=9))
    arrays = [np.array(row, dtype) for row in rows]
    kept = [array.copy() for array in arrays]
    assert bits(median(arrays)) == bits(median(data.draw(st.permutations(arrays))))
    assert all(bits(a) == bits(b) for a, b in zip(arrays, kept, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 33, 40, 129, 130])
def test_median_of_zeros_is_numpys_but_of_minus_zeros_alone_minus_zero(dtype, n):
    tiny = np.finfo(dtype).smallest_subnormal
    values = np.array([-0.0, 0.0, -tiny, tiny, -1, 1], dtype)
    x = np.random.default_rng(n).choice(values, (n, 600), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    x[:, 7], x[:, 99] = -0.0, -0.0
    expected = np.median(x, axis=0).astype(dtype)
    expected[(x == 0).all(axis=0) & np.signbit(x).all(axis=0)] = -0.0
    assert bits(median(list(x))) == bits(expected)


def test_the_mean_of_two_middles_does_not_overflow():
    for dtype in FLOATS:
        largest = np.full(2, np.finfo(dtype).max)
        assert same_values(median([largest, largest]), largest)


def test_one_nan_does_not_poison_the_median():
    for nan in (np.nan, -np.nan):
        assert median([np.array([v]) for v in (1.0, nan, 2.0, 3.0, 2.5)])[0] in (2.0, 2.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_median_of_any_shape_and_layout(dtype):
    rng = np.random.default_rng(1)
    for shape in ((), (0,), (3, 0), (7, 5, 2)):
        x = rng.integers(-9, 9, (3, *shape)).astype(dtype)
        got = median(list(x))
        assert isinstance(got, np.ndarray)
        assert bits(got) == bits(np.asarray(np.median(x, axis=0)).astype(dtype))
    x = rng.integers(-9, 9, (3, 6, 8)).astype(dtype)
    views = [x[0].T, x[1].copy().T, x[2][::-1][::-1].T]
    out = np.empty((16, 6), dtype)[::2]
    assert median(views, out=out) is out
    assert np.array_equal(out, np.median(x, axis=0).T)
    swapped = [a.astype(a.dtype.newbyteorder()) for a in x]
    assert np.array_equal(median(swapped), np.median(x, axis=0))
    assert median(swapped).dtype == swapped[0].dtype
    expected = median(list(x))
    assert median(list(x), out=x[1]) is not expected
    assert np.array_equal(x[1], expected)


@given(st.data(), st.sampled_from(["int8", "uint8", "int64", "uint64", "bool"]))
def test_median_of_integers_is_exact_and_rounds_half_to_even(data, name):
    dtype = np.dtype(name)
    low, high = (0, 1) if name == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=6))
    got = median([np.array(value, dtype) for value in values])
    assert got.dtype == dtype
    assert int(got) == round(middle_of(Fraction(value) for value in values))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_median_of_small_floats_is_rounded_once(name):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    x = np.random.default_rng(2).standard_normal((4, 500)).astype(dtype)
    expected = np.median(x.astype(np.float64), axis=0).astype(dtype)
    assert bits(median(list(x))) == bits(expected)


def test_median_refuses_what_it_cannot_do():
    one = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="no arrays"):
        median([])
    with pytest.raises(ValueError, match=r"array 1 is float32\(3,\)"):
        median([one, np.ones(3, np.float32)])
    with pytest.raises(ValueError, match="out must be"):
        median([one], out=np.ones(2))
    with pytest.raises(TypeError, match="complex"):
        median([np.ones(2, np.complex64)])


# Sums


def results(rows, weights, order, dtype):
    """The same mean by each way that the code can take."""
    arrays = [np.array(row, dtype) for row in rows]
    total = Sum(arrays[:1])
    for i in order:
        total.add([arrays[i]], weights[i])
    divisor = float(sum(map(Fraction, weights)))
    yield weighted_mean([arrays[i] for i in order], [weights[i] for i in order])
    yield total.divided_by(divisor)[0]


@given(st.data(), st.sampled_from(FLOATS), st.booleans())
def test_a_mean_is_the_exact_mean_rounded_once_in_any_order(data, dtype, whole):
    n = data.draw(st.integers(1, 20))
    limit = 2.0**900 if dtype == np.float64 else float(np.finfo(np.float32).max)
    least = 2.0**-900 if dtype == np.float64 else 0.0
    width = np.dtype(dtype).itemsize * 8
    value = st.floats(-limit, limit, width=width).filter(lambda x: x == 0 or abs(x) >= least)
    pool = data.draw(st.lists(value, min_size=1, max_size=6))
    value = st.sampled_from([*pool, *(-x for x in pool)]) | value  # so that large terms cancel and leave small ones
    rows = data.draw(st.lists(st.lists(value, min_size=3, max_size=3), min_size=n, max_size=n))
    weight = st.integers(1, 10**6).map(float) if whole else st.floats(1e-3, 1e3)
    weights = data.draw(st.lists(weight, min_size=n, max_size=n))
    divisor = Fraction(float(sum(map(Fraction, weights))))
    expected = [nearest(total / divisor, dtype) for total in exact_sum(rows, weights)]
    first = None
    for order in (range(n), data.draw(st.permutations(range(n)))):
        for got in results(rows, weights, order, dtype):
            assert same_values(got, expected)
            first = got if first is None else first
            assert bits(got) == bits(first)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weight", [1.0, 1 / 3])
def test_what_cancels_leaves_the_rest_to_the_bit(dtype, weight):
    # One value for every distance below what cancels, spread over up to three passes of the sum.
    rng = np.random.default_rng(10)
    info = np.finfo(dtype)
    distances = np.arange(100 if dtype == np.float32 else 700)
    rest = np.ldexp(rng.uniform(1, 2, len(distances)), -distances).astype(dtype)
    large, middling = dtype(1 + info.eps), np.ldexp(dtype(1 + info.eps), -distances // 2).astype(dtype)
    terms = [np.full_like(rest, large), np.full_like(rest, -large), middling, -middling, rest]
    for n in (5, 8, 20):
        for _ in range(6):
            rows = [*terms, *[np.zeros_like(rest)] * (n - 5)]
            rows = [rows[i] for i in rng.permutation(n)]
            total = Sum(rows[:1])
            for row in rows:
                total.add([row], weight)
            assert same_values(total.divided_by(weight)[0], rest)
            assert same_values(weighted_mean(rows, [8 * weight] * n), rest / dtype(n)) or weight != 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_ties_are_broken_by_what_is_far_below(dtype):
    eps = float(np.finfo(dtype).eps)
    distances = range(20, 149 if dtype == np.float32 else 900)
    tiny = np.ldexp(1.0, [-k for k in distances]).astype(dtype)
    half = np.full_like(tiny, eps / 2)
    for one, half_up, least in product((1.0, 1 + eps), (half, -half), (tiny, -tiny, 0 * tiny)):
        rows = [np.full_like(tiny, one), half_up, least]
        exact = exact_sum(rows, [1, 1, 1])
        expected = [nearest(number, dtype) for number in exact]
        total, scaled = Sum(rows[:1]), Sum(rows[:1])
        for row in rows:
            total.add([row], 1)
        for row in rows[1:]:
            scaled.add([row], 8)
        assert same_values(total.divided_by(1)[0], expected)
        assert same_values(weighted_mean([4 * row for row in rows] + [0 * half], [1] * 4), expected)
        assert same_values(scaled.added_to(rows[:1], 1 / 8)[0], expected)
        assert same_values(weighted_mean(rows, [1, 1, 1]), [nearest(number / 3, dtype) for number in exact])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [3, 5, 7])
def test_means_that_fall_between_two_values_go_to_the_even_one(dtype, n):
    eps = Fraction(float(np.finfo(dtype).eps))
    middle = [1 + (k + Fraction(1, 2)) * eps for k in range(40)]
    first = [nearest(n * m, dtype) for m in middle]
    second = [dtype(float(n * m - Fraction(float(x)))) for m, x in zip(middle, first, strict=True)]
    rows = [np.array(first), np.array(second), *[np.zeros(40, dtype)] * (n - 2)]
    assert same_values(weighted_mean(rows, [800] * n), [nearest(m, dtype) for m in middle])


@pytest.mark.parametrize("n", [5, 100, 1000])
def test_random_float32_means_are_correctly_rounded(n):
    rng = np.random.default_rng(n)
    plain = rng.standard_normal((n, 20))
    wide = np.ldexp(rng.standard_normal((n, 20)), rng.integers(-120, 120, (n, 20)))
    rows = np.concatenate([plain, wide], axis=1).astype(np.float32)
    weights = rng.integers(1, 60_000, n).astype(float).tolist()
    expected = [nearest(total / Fraction(sum(weights)), np.float32) for total in exact_sum(rows, weights)]
    for order in (np.arange(n), rng.permutation(n)):
        for got in results(rows, weights, order, np.float32):
            assert same_values(got, expected)  # at most half a unit in the last place, and never more


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 3, 7, 40])
def test_equal_models_are_their_own_mean(dtype, n):
    rng = np.random.default_rng(n)
    limit = 100 if dtype == np.float32 else 900
    x = np.ldexp(rng.standard_normal(999), rng.integers(-limit, limit, 999)).astype(dtype)
    x[:3] = -0.0, 0.0, np.finfo(dtype).smallest_normal
    weights = rng.integers(1, 10**5, n).astype(float).tolist()
    for got in results([x] * n, weights, range(n), dtype):
        assert bits(got) == bits(x)


@given(st.data(), st.sampled_from(FLOATS))
def test_a_step_is_base_plus_the_exact_sum_of_differences(data, dtype):
    value = st.integers(-(10**6), 10**6).map(lambda i: dtype(i) / dtype(4096))
    triple = st.lists(value, min_size=3, max_size=3)
    base, rows = data.draw(triple), data.draw(st.lists(triple, min_size=1, max_size=12))
    weights = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(rows), max_size=len(rows)))
    exact = exact_sum([np.subtract(row, base) for row in rows], weights)
    expected = [nearest(Fraction(float(x)) + step, dtype) for x, step in zip(base, exact, strict=True)]
    x = [np.array(base, dtype)]
    for order in (range(len(rows)), data.draw(st.permutations(range(len(rows))))):
        total = Sum(x)
        for i in order:
            total.add_difference([np.array(rows[i], dtype)], x, weights[i])
        assert same_values(total.added_to(x, 1.0)[0], expected)
        half = total.added_to(x, 0.5)[0]
        assert same_values(half, [nearest(Fraction(float(b)) + s / 2, dtype) for b, s in zip(base, exact, strict=True)])


@pytest.mark.parametrize("dtype", [np.float16, *FLOATS])
def test_nobody_moved_leaves_the_base_to_the_bit(dtype):
    x = [np.random.default_rng(3).standard_normal(99).astype(dtype), np.array(-0.0, dtype)]
    total = Sum(x)
    for k in range(20):
        total.add_difference([a.copy() for a in x], x if k % 3 else [a.copy() for a in x], 1 / (k + 3))
    assert [bits(a) for a in total.added_to(x, 1 / 7)] == [bits(a) for a in x]


def test_the_example_of_fednova():
    x = [np.array([1, 1], np.float32)]
    total = Sum(x)
    total.add_difference([np.array([2, 1], np.float32)], x, 0.5 / 1)
    total.add_difference([np.array([1, 4], np.float32)], x, 0.5 / 3)
    assert total.added_to(x, 0.5 * 1 + 0.5 * 3)[0].tolist() == [2, 2]


def test_a_result_does_not_disturb_the_sum():
    rng = np.random.default_rng(4)
    rows = np.ldexp(rng.standard_normal((30, 50)), rng.integers(-100, 100, (30, 50)) // 90 * 90).astype(np.float32)
    asked, silent = Sum([rows[0]]), Sum([rows[0]])
    for i, row in enumerate(rows):
        for total in (asked, silent):
            total.add([row], i + 1)
        assert bits(asked.divided_by(7)[0]) == bits(asked.divided_by(7)[0])
    assert bits(asked.divided_by(465)[0]) == bits(silent.divided_by(465)[0])


def test_a_sum_takes_the_memory_of_a_model_however_many_clients():
    size = 1 << 18
    tracemalloc.start()
    try:
        total = Sum([np.zeros(size, np.float32)])
        before = tracemalloc.get_traced_memory()[0]
        for k in range(40):
            total.add([np.full(size, k, np.float32)], 1)
        total.divided_by(40)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < size * (21 + 4 * 8 + 4) + (1 << 22)  # the state, eight updates, the result, and some blocks


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_small_floats_are_rounded_once(name):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    x = np.random.default_rng(5).standard_normal((3, 2000)).astype(dtype)
    got = weighted_mean(list(x), [1, 1, 1])
    exact = x.astype(np.float64).sum(axis=0) / 3  # off by 2**-53 of it, which does not matter for so few values
    assert bits(got) == bits(exact.astype(dtype))


def test_integers_and_bools_are_rounded_to_even_and_clipped():
    like = [
        np.array([250, 3, 0], np.uint8),
        np.array([-(2**63), 2**63 - 1]),
        np.array([True, False, True]),
        np.array(7),
    ]
    total = Sum(like)
    total.add(like, 1)
    total.add([np.array([255, 4, 0], np.uint8), like[1], np.array([True, False, False]), np.array(10)], 1)
    mean, double = total.divided_by(2), total.divided_by(1)
    assert [a.tolist() for a in mean] == [[252, 4, 0], [-(2**63), 2**63 - 1], [True, False, False], 8]
    assert [a.tolist() for a in double[:2]] == [[255, 7, 0], [-(2**63), 2**63 - 1]]
    assert [(a.dtype, a.shape) for a in mean] == [(a.dtype, a.shape) for a in like]
    assert all(isinstance(a, np.ndarray) for a in mean)


def test_beyond_the_range_is_infinite_without_a_warning():
    large = np.full(3, np.finfo(np.float32).max)
    total = Sum([large])
    for _ in range(3):
        total.add([large], 1e4)
    assert same_values(total.divided_by(3e4)[0], large)
    assert np.isposinf(total.divided_by(1)[0]).all()
    assert np.isposinf(total.added_to([large], 1.0)[0]).all()
    half = np.full(3, 60_000, np.float16)
    assert np.isposinf(weighted_mean([half, half], [1, 1]) * np.float16(1)).sum() == 0
    one = Sum([half])
    one.add([half], 2)
    assert np.isposinf(one.divided_by(1)[0]).all()


def test_values_that_are_not_finite_spoil_their_coordinate_only():
    for dtype in FLOATS:
        rows = np.ones((20, 40), dtype)
        rows[3, 7], rows[11, 8] = np.inf, np.nan
        for got in results(rows, [1.0] * 20, range(20), dtype):
            assert np.flatnonzero(~np.isfinite(got)).tolist() == [7, 8]
            assert np.delete(got, [7, 8]).tolist() == [1] * 38


def test_sums_refuse_what_does_not_fit():
    x = [np.ones(2, np.float32), np.ones((), np.float32)]
    total = Sum(x)
    for arrays in (x[:1], x[::-1], [a.astype(np.float64) for a in x]):
        with pytest.raises(ValueError, match="array"):
            total.add(arrays, 1)
        with pytest.raises(ValueError, match="array"):
            total.added_to(arrays, 1)
    for weight in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            total.add(x, weight)
    for divisor in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="cannot divide"):
            total.divided_by(divisor)
    with pytest.raises(ValueError, match="2 weights for 1 arrays"):
        weighted_mean(x[:1], [1, 2])
    with pytest.raises(TypeError, match="complex"):
        Sum([np.ones(1, np.complex64)])


def test_nothing_added_is_zero():
    x = [np.ones(3, np.float32), np.ones(2, np.int8), np.array(-0.0)]
    total = Sum(x)
    total.add(x, 0)
    assert [a.tolist() for a in total.divided_by(2)] == [[0, 0, 0], [0, 0], 0]
    assert [bits(a) for a in total.added_to(x, 3)] == [bits(a) for a in x]
    assert Sum([]).divided_by(1) == []


def test_weighted_mean_writes_to_out_of_any_layout():
    x = np.random.default_rng(6).standard_normal((3, 4, 5)).astype(np.float32)
    expected = weighted_mean(list(x), [1, 2, 3])
    for out in (np.empty((4, 5), np.float32), np.empty((5, 4), np.float32).T):
        assert weighted_mean(list(x), [1, 2, 3], out=out) is out
        assert np.array_equal(out, expected)


# All


def test_threads_do_not_change_the_bits():
    rng = np.random.default_rng(7)
    x = list(rng.standard_normal((9, 3 * GRAIN + 77), dtype=np.float32))
    x[2][::1000] = 1e30
    x[3][::1000] = 1e-30
    for kernel in (median, lambda a, threads: weighted_mean(a[:5], [3, 1, 4, 1, 5], threads=threads)):
        assert bits(kernel(x, threads=1)) == bits(kernel(x, threads=2)) == bits(kernel(x, threads=3))
    steps = []
    for threads in (1, 2):
        total = Sum(x[:1], threads)
        for array in x:
            total.add_difference([array], x[:1], 1 / 3)
        steps.append(total.added_to(x[:1], 0.1)[0])
    assert bits(steps[0]) == bits(steps[1])


def many_results():
    """Bits of results that go through every kernel."""
    digest = hashlib.sha256()
    rng = np.random.default_rng(8)
    for dtype, n in product(FLOATS, (2, 5, 12, 40, 130)):
        x = rng.standard_normal((n, 150))
        x[:, 100:] = np.ldexp(x[:, 100:], rng.integers(-100, 100, (n, 50)))
        arrays = list(x.astype(dtype))
        digest.update(median(arrays))
        digest.update(weighted_mean(arrays, rng.integers(1, 9999, n).tolist()))
        digest.update(weighted_mean(arrays, rng.random(n).tolist()))
        total = Sum(arrays[:1])
        for array in arrays:
            total.add_difference([array], arrays[:1], float(rng.random()))
        digest.update(total.added_to(arrays[:1], 0.3)[0])
        assert all_finite(arrays[0])
    digest.update(weighted_mean([a[:100].astype(np.float16) for a in arrays], [1] * len(arrays)))
    return digest.hexdigest()


def test_another_processor_gives_the_same_bits():
    assert on_the_oldest_processor("test_kernels", "many_results") == many_results()


def test_threads_may_compile_and_run_at_once():
    x = np.random.default_rng(9).standard_normal((50, 1000))
    sizes = range(21, 37)  # not compiled by other tests for sums: weighted_mean of so many
    with ThreadPoolExecutor(8) as pool:
        means = list(pool.map(lambda n: weighted_mean(list(x[:n].astype(np.float32)), [1] * n), [*sizes, *sizes]))
    for n, mean in zip([*sizes, *sizes], means, strict=True):
        assert bits(mean) == bits(weighted_mean(list(x[:n].astype(np.float32)), [1] * n))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_all_finite_sees_one_bad_value_anywhere(dtype):
    x = np.full(300, np.finfo(dtype).max, dtype)
    assert all_finite(x)
    assert all_finite(x.reshape(20, 15).T)
    assert all_finite(x[:0])
    assert all_finite(x[0:1].reshape(()))
    for place, value in product((0, 63, 64, 255, 256, 299), (np.nan, -np.nan, np.inf, -np.inf)):
        bad = x.copy()
        bad[place] = value
        assert not all_finite(bad)
        assert not all_finite(np.concatenate([bad, bad])[place : place + 1])
    assert all_finite(np.arange(3))


def test_the_check_of_the_installation_passes(capsys):
    from strategies.kernels.__main__ import main

    assert main() == 0
    assert capsys.readouterr().out.startswith("kernels: ok")
