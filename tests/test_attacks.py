"""What attackers send: values computed by hand, closed forms, what the numbers of attackers allow."""

import warnings
from fractions import Fraction
from typing import get_args

import ml_dtypes
import numpy as np
import pytest
from scipy.special import ndtri

from server.attacks import ATTACKS, strength_of, z_max
from task import scenario, seeds
from task.errors import UserError
from task.scenario import Byzantine

# x, then what the attacker and three honest clients trained: updates (4, -4), and (1, 10), (2, 20), (3, 60).
X = [np.array([10.0, 20.0])]
OWN = [np.array([14.0, 16.0])]
HONEST = [[np.array([11.0, 30.0])], [np.array([12.0, 40.0])], [np.array([13.0, 80.0])]]


def stream():
    return seeds.stream(0, "test")


def update(name, strength=1.0, x=X, own=OWN, honest=HONEST):
    """What is sent, minus x."""
    sent = ATTACKS[name].function(x, own, honest, stream(), strength)
    return [s.astype(np.float64) - a.astype(np.float64) for s, a in zip(sent, x, strict=True)]


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("sign-flip", 1.0, [-4, 4]),
        ("scaled-sign-flip", 10.0, [-40, 40]),
        ("same-value", 2.5, [2.5, 2.5]),
        ("ipm", 0.5, [-1, -15]),  # means 2 and 30
        ("ipm", 2.0, [-4, -60]),
        ("mimic", 1.0, [1, 10]),
        ("nan", 1.0, [np.nan, np.nan]),
        # Squares of the deviations: 1 + 0 + 1 = 2 and 400 + 100 + 900 = 1400; over 3 - 1: 1 and 700.
        ("alie", 1.5, [2 - 1.5, 30 - 1.5 * 26.457513110645906]),
    ],
)
def test_updates_by_hand(name, strength, expected):
    np.testing.assert_allclose(update(name, strength)[0], expected, rtol=1e-14)


def test_of_one_honest_client_nobody_deviates():
    assert update("alie", 1.5, honest=HONEST[:1])[0].tolist() == [1, 10]


def test_alie_at_8_of_20_from_the_table_of_the_normal_distribution():
    # s = floor(20 / 2 + 1) - 8 = 3; (20 - 8 - 3) / (20 - 8) = 0.75; the table has 0.75 at 0.6745.
    z = ATTACKS["alie"].strength_for(None, 20, 8)
    assert update("alie", z)[0][0] == pytest.approx(2 - 0.6745, abs=5e-5)


@pytest.mark.parametrize(("n", "f", "z"), [(10, 3, 0.18), (10, 4, 0.43), (5, 2, 0.43), (25, 5, 0.25), (50, 24, 1.43)])
def test_z_from_the_table(n, f, z):
    # (n - f - s) / (n - f) = 4/7, 4/6, 2/3, 12/20, 24/26; the table has them nearest to these.
    assert z_max(n, f) == pytest.approx(z, abs=0.005)


@pytest.mark.parametrize("n", range(3, 40))
def test_z_is_the_normal_quantile_wherever_it_is_defined(n):
    for f in range(1, n):
        honest, supporters = n - f, int(np.floor(n / 2 + 1)) - f
        if supporters > 0:
            assert z_max(n, f) == pytest.approx(ndtri((honest - supporters) / honest), abs=1e-12)
            assert (z_max(n, f) > 0) == (f > (2 if n % 2 == 0 else 1))
        else:
            with pytest.raises(ValueError, match="defines no z"):
                z_max(n, f)


def test_noise_has_the_deviation_asked_for_and_comes_from_the_stream_array_by_array():
    x = [np.full((100, 50), 3.0), np.zeros(5000)]
    first, second = update("gaussian", 2.0, x, x)
    again = stream()
    np.testing.assert_allclose(first, 2 * again.standard_normal((100, 50)), atol=1e-14)
    np.testing.assert_array_equal(second, 2 * again.standard_normal(5000))
    # Standard errors of 10,000 draws: 2 / 100 of the mean, about 2 / 141 of the deviation.
    drawn = np.concatenate([first.ravel(), second])
    assert abs(drawn.mean()) < 4 * 0.02
    assert abs(drawn.std() - 2) < 4 * 0.0142


def test_sums_are_formed_in_float64_and_rounded_once():
    random = np.random.default_rng(0)
    x, *honest = (random.normal(size=300).astype(np.float32) for _ in range(8))
    sent = ATTACKS["ipm"].function([x], [x], [[h] for h in honest], stream(), 0.3)[0]
    for k in range(300):
        mean = sum(Fraction(float(h[k])) - Fraction(float(x[k])) for h in honest) / 7
        off = abs(Fraction(float(sent[k])) - (Fraction(float(x[k])) - Fraction(0.3) * mean))
        assert off <= Fraction(float(np.spacing(np.abs(sent[k])))) * Fraction(500_001, 1_000_000)


def model(value):
    """All kinds of arrays that a model may hold."""
    floats = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
    arrays = [np.full((2, 3), value, dtype) for dtype in floats]
    return [*arrays, np.array(value, np.float32), np.array([value], np.int64), np.array(value > 2), np.zeros((0, 2))]


@pytest.mark.parametrize("name", ATTACKS)
def test_dtypes_and_shapes_stay_and_inputs_are_untouched(name):
    x, own, honest = model(1), model(3), [model(2), model(5)]
    before = [a.tobytes() for one in [x, own, *honest] for a in one]
    sent = ATTACKS[name].function(x, own, honest, stream(), 1.0)
    assert [(a.dtype, a.shape) for a in sent] == [(a.dtype, a.shape) for a in x]
    assert [a.tobytes() for one in [x, own, *honest] for a in one] == before
    assert not any(np.shares_memory(s, a) for one in [x, own, *honest] for s, a in zip(sent, one, strict=True))
    counted = honest[0] if name == "mimic" else own
    assert [a.tobytes() for a in sent[5:7]] == [a.tobytes() for a in counted[5:7]]


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"gaussian"}))
def test_all_kinds_of_floats_get_the_same_update(name):
    # x = 1, own update 2, honest updates 1 and 4: 2.5 - 1.5 * sqrt(4.5) = -0.682 has no short binary form.
    floats = [
        array.astype(np.float64).ravel()[0] for array in update(name, 1.5, model(1), model(3), [model(2), model(5)])[:5]
    ]
    np.testing.assert_allclose(floats, floats[1], rtol=0.01)


def test_what_no_longer_fits_is_infinite_without_a_warning():
    x, own = [np.zeros(1, np.float16)], [np.full(1, 60000, np.float16)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ATTACKS["scaled-sign-flip"].function(x, own, [], stream(), 10.0)[0].tolist() == [-np.inf]


def test_every_attack_of_scenarios_is_here_but_the_one_in_the_data():
    assert set(get_args(scenario.Attack)) == {*ATTACKS, "label-flip"}


def test_strengths_where_the_scenario_does_not_say():
    given = {name: attack.strength_for(None, 20, 8) for name, attack in ATTACKS.items()}
    assert given.pop("alie") == z_max(20, 8)
    none = {"sign-flip": None, "nan": None, "mimic": None}
    assert given == {"scaled-sign-flip": 10, "ipm": 0.5, "gaussian": 1, "same-value": 1, **none}
    assert strength_of(Byzantine(attack="alie", strength=0.5), 5, "s") == 0.5


@pytest.mark.parametrize("attackers", [1, 2, 6])  # z by the paper: -0.14, 0, not defined
def test_alie_of_so_few_or_so_many_that_its_paper_has_no_z_takes_that_of_byzfl(attackers):
    assert strength_of(Byzantine(attack="alie", attackers=attackers), 10, "s") == 1.5


@pytest.mark.parametrize(
    ("attack", "attackers", "strength", "told"),
    [
        ("sign-flip", 1, 2.0, "the attack sign-flip has no strength; leave it out"),
        ("mimic", 1, 2.0, "has no strength"),
        ("nan", 1, 2.0, "has no strength"),
        ("label-flip", 1, 2.0, "has no strength"),
    ],
)
def test_an_attack_that_is_none_is_refused_in_one_line(attack, attackers, strength, told):
    part = Byzantine(attack=attack, attackers=attackers, strength=strength)
    with pytest.raises(UserError, match=told.replace(".", r"\.")) as caught:
        strength_of(part, 10, "mine")
    assert str(caught.value).startswith("scenario 'mine': the attack ")
    assert "\n" not in str(caught.value)
