"""Sentences that say what to take, and what it gives, without calling noise a win."""

from collections.abc import Mapping, Sequence

from server.names import enumerate_words
from server.oneshot.combination import (
    AVERAGES,
    BEST_LOCAL,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    MATCHED,
    MEAN_LOCAL,
    Combination,
)
from server.oneshot.estimates import MethodSummary, difference, over_locals, summarise
from server.oneshot.words import alone, points, share

_CANDIDATES = (*AVERAGES, MATCHED, CALIBRATED, DISTILLED)  # one model each; the anchored one is no aggregation


def verdict(combinations: Sequence[Combination]) -> list[str]:
    """What to take, what that is worth, and how the plain averages fared.

    Args:
        combinations: one for each seed, at least one.

    Returns:
        One to four sentences or pairs of them, the most important first.
    """
    summaries = summarise(combinations)
    candidates = [summaries[method] for method in _CANDIDATES if method in summaries]
    if not candidates:
        return ["No way of combining these models is defined."]
    ranked = sorted(candidates, key=lambda one: -one.accuracy.mean)  # stable: of equals the simplest comes first
    lines = [_take(combinations, ranked), *_runner_up(combinations, ranked), *_averages(combinations, summaries)]
    if len(combinations) == 1:
        lines.append(f"{alone(combinations)}: there are no intervals, and small gaps may be noise.")
    return lines


def _take(combinations: Sequence[Combination], ranked: Sequence[MethodSummary]) -> str:
    best = ranked[0]
    names = enumerate_words(one.method for one in ranked if one.accuracies == best.accuracies)
    to_mean = difference(combinations, best.method, MEAN_LOCAL)
    if to_mean is not None and to_mean.mean <= 0:
        return (
            f"Take none of the combined models: the best of them, {names} at {share(best.accuracy)}, has"
            f" {points(to_mean)} points against the mean local model."
        )
    against = [
        f"{points(found)} points against the {words}"
        for words, other in (("mean local model", MEAN_LOCAL), ("best one", BEST_LOCAL), ("ensemble", ENSEMBLE))
        if (found := difference(combinations, best.method, other)) is not None
    ]
    noise = to_mean is not None and to_mean.half is not None and not to_mean.clear
    return (
        f"Take {names}: {share(best.accuracy)}"
        + (f"; {enumerate_words(against)}." if against else ".")
        + " Its lead over the mean local model may be noise." * noise
    )


def _runner_up(combinations: Sequence[Combination], ranked: Sequence[MethodSummary]) -> list[str]:
    """Whether the next best could as well be the best."""
    best, *rest = [one for one in ranked if one is ranked[0] or one.accuracies != ranked[0].accuracies]
    gap = difference(combinations, best.method, rest[0].method) if rest else None
    if gap is None or gap.half is None or gap.clear:
        return []
    return [f"These seeds do not tell it from {rest[0].method} ({points(gap)} points): that gap may be noise."]


def _averages(combinations: Sequence[Combination], summaries: Mapping[str, MethodSummary]) -> list[str]:
    """How the averages that match nothing fared, against the worst and the best local model."""
    known = [summaries[method] for method in AVERAGES if method in summaries]
    if not known:
        return []
    low, high = (pick(one.accuracy.mean for one in known) for pick in (min, max))
    span = f"{100 * low:.2f} %" if f"{low:.4f}" == f"{high:.4f}" else f"{100 * low:.2f} to {100 * high:.2f} %"
    names = enumerate_words(one.method for one in known)
    worst, best = (over_locals(combinations, pick).mean for pick in (min, max))
    if fails(combinations):
        return [
            f"Do not average these models as they are: {names} give {span}; the worst local model {100 * worst:.2f} %."
        ]
    place = "above the best local model" if low > best else "not below the worst local model" if low >= worst else ""
    return [f"The averages that match nothing ({names}) give {span}{', ' + place if place else ''}."]


def fails(combinations: Sequence[Combination]) -> bool:
    """Whether the plain average is, on average over the seeds, worse than the worst local model."""
    summaries = summarise(combinations)
    plain = next((summaries[method] for method in AVERAGES if method in summaries), None)
    return plain is not None and plain.accuracy.mean < over_locals(combinations, min).mean
