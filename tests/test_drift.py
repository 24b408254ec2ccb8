"""Norms and directions of the clients' updates."""

import numpy as np
import pytest

from server import drift
from server.drift import Drift
from task.update import Facts

X = [np.array([1.0, 1.0], np.float32), np.array([7], np.int64)]


def measured(*updates, new):
    found = Drift(X)
    for client, arrays in updates:
        found.add(client, arrays, Facts(accuracy_before=0.5, accuracy_after=0.75))
    return list(found.rows(new))


def moved(*by, counter=7):
    return [X[0] + np.array(by, np.float32), np.array([counter], np.int64)]


def test_norms_and_cosines_by_client_whoever_came_first():
    """Steps (3, 4) and (0, -2) beside a global step of (2, 0): norms 5, 2, cosines 3/5, 0; counters do not count."""
    rows = measured((4, moved(0, -2)), (1, moved(3, 4, counter=99)), new=moved(2, 0))
    assert [(row.client, row.update_norm, row.cosine) for row in rows] == [
        (1, pytest.approx(5), pytest.approx(0.6)),
        (4, pytest.approx(2), pytest.approx(0)),
    ]
    assert {(row.accuracy_before, row.accuracy_after) for row in rows} == {(0.5, 0.75)}


@pytest.mark.parametrize(("step", "new"), [((0, 0), (1, 1)), ((1, 1), (0, 0))])
def test_who_did_not_move_has_no_direction(step, new):
    assert measured((0, moved(*step)), new=moved(*new))[0].cosine is None


def test_far_from_zero_the_difference_is_taken_first():
    base = [np.full(1000, 1e4, np.float32)]
    found = Drift(base)
    found.add(0, [base[0] + np.float32(0.5)], Facts())
    [row] = found.rows([base[0] + np.float32(0.25)])
    assert row.update_norm == pytest.approx(0.5 * 1000**0.5, rel=1e-12)
    assert row.cosine == pytest.approx(1, abs=1e-12)


def test_norms_beyond_the_range_of_squares_have_no_cosines():
    """Of float64 models: the square of 2.7e-162 is rounded to 4.9e-324, which would make the cosine 1.2."""
    for far in (2.7e-162, 1e300, 1.7e308):
        found = Drift([np.array([0.0 if far < 1 else -far])])
        found.add(0, [np.array([far])], Facts())
        [row] = found.rows([np.array([1.0])])
        assert row.cosine is None and row.update_norm == pytest.approx(far if far < 1 else np.inf, rel=0.5)


def test_too_much_to_keep_has_norms_and_no_cosines(monkeypatch):
    monkeypatch.setattr(drift, "_KEPT_BYTES", 40)  # two updates of 16 bytes, not three
    assert all(row.cosine is not None for row in measured(*((k, moved(1, k)) for k in range(2)), new=moved(1, 0)))
    rows = measured(*((k, moved(1, k)) for k in range(3)), new=moved(1, 0))
    assert [(row.cosine, row.update_norm) for row in rows] == [
        (None, pytest.approx((1 + k * k) ** 0.5)) for k in range(3)
    ]
