"""Rules under numerical stress: many clients, magnitudes far apart, the edges of a dtype."""

from fractions import Fraction

import numpy as np
import pytest

from strategies import REGISTRY, Update, aggregate
from strategies.kernels import median, weighted_mean

SIZES = [5, 100, 1000]
SCALES = ["one", "1e30", "denormal", "mixed"]
WIDTH = 24


def values(scale: str, n: int) -> np.ndarray:
    """n models of WIDTH float32 values."""
    random = np.random.default_rng(n)
    drawn = random.standard_normal((n, WIDTH))
    if scale == "mixed":
        drawn *= 10.0 ** random.integers(-44, 31, (n, WIDTH))
    return (drawn * {"1e30": 1e30, "denormal": 1e-42}.get(scale, 1.0)).astype(np.float32)


def updates_of(models: np.ndarray) -> list[Update]:
    random = np.random.default_rng(7)
    return [
        Update([model], int(random.integers(1, 10_000)), float(random.integers(1, 100)), k, 3)
        for k, model in enumerate(models)
    ]


def ulps(got: np.ndarray, truth: list[Fraction]) -> float:
    """The largest distance from the true values, in units of the last place of float32."""
    gaps = np.spacing(np.abs(got)).tolist()
    return max(float(abs(Fraction(g) - t) / Fraction(gap)) for g, t, gap in zip(got.tolist(), truth, gaps, strict=True))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("scale", SCALES)
def test_float32_means_are_within_half_a_unit_of_the_true_ones_at_any_number_of_clients(scale: str, n: int):
    models = values(scale, n)
    x, updates = [np.zeros(WIDTH, np.float32)], updates_of(models)
    columns = [[Fraction(v) for v in column] for column in models.T.tolist()]
    plain = [sum(column) / n for column in columns]
    examples = [update.num_examples for update in updates]
    weighted = [sum(w * v for w, v in zip(examples, column, strict=True)) / sum(examples) for column in columns]
    assert ulps(aggregate("fedavg", x, updates)[0], plain) <= 0.5
    assert ulps(aggregate("weighted", x, updates)[0], weighted) <= 0.5


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("scale", ["one", "1e30", "denormal"])
def test_fednova_is_within_a_unit_of_the_true_value_of_its_own_size(scale: str, n: int):
    """Its n factors are floats, each off by 2e-16 of itself: far below float32, whatever cancels between clients."""
    models = values(scale, n)
    updates = updates_of(models)
    new = aggregate("fednova", [np.zeros(WIDTH, np.float32)], updates)[0]
    shares = [Fraction(u.num_examples, sum(v.num_examples for v in updates)) for u in updates]
    norms = [Fraction(u.local_norm) for u in updates if u.local_norm]
    effective = sum(p * a for p, a in zip(shares, norms, strict=True))
    factors = [effective * p / a for p, a in zip(shares, norms, strict=True)]
    for column, got in zip(models.T.tolist(), new.tolist(), strict=True):
        truth = sum(f * Fraction(v) for f, v in zip(factors, column, strict=True))
        largest = max(abs(f * Fraction(v)) for f, v in zip(factors, column, strict=True))
        unit = max(Fraction(float(np.spacing(np.float32(abs(got))))), largest * Fraction(1, 2**48))
        assert abs(Fraction(got) - truth) <= unit


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("scale", SCALES)
def test_every_rule_makes_finite_numbers_of_extreme_ones(name: str, scale: str):
    models = values(scale, 9)
    models[0, :4] = [3e38, -3e38, 1e-45, -0.0]
    with np.errstate(all="raise", under="ignore", over="ignore"):
        (new,) = aggregate(name, [models[-1].copy()], updates_of(models))
    assert new.dtype == np.float32 and np.isfinite(new).all()


@pytest.mark.parametrize("scale", SCALES)
def test_one_thread_or_several_make_the_same_bits(scale: str):
    models = list(np.tile(values(scale, 7), (1, 9000)))  # large enough to be shared between threads
    weights = [3, 1, 4, 1, 5, 9, 2]
    for kernel in (median, lambda given, threads: weighted_mean(given, weights, threads=threads)):
        serial = kernel(models, threads=1).tobytes()
        assert all(kernel(models, threads=threads).tobytes() == serial for threads in (2, 3, 8))
