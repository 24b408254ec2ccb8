"""Strategies that their options, or few updates, reduce to a plainer rule: why two of them can be one."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from strategies.specify import parse_specification
from strategies.trimmed_mean import TRIM


class Plain(NamedTuple):
    """A rule that does the same, and why; the strategy itself and "" where there is none."""

    rule: str
    why: str


def plain_rule(specification: str, most: int) -> Plain:
    """What a strategy is where no round has more updates than `most`.

    Args:
        specification: as the user wrote it.
        most: updates a round, >= 1.
    """
    name, options = parse_specification(specification)
    reduce = _REDUCTIONS.get(name)
    return (reduce(options, most) if reduce else None) or Plain(specification, "")


def _trimmed_mean(options: Mapping[str, Any], most: int) -> Plain | None:
    trim = options.get("trim", TRIM)
    if trim == 0:
        return Plain("fedavg", "nothing was trimmed")
    if most <= 2 * trim + 2:
        return Plain("fedmedian", f"of {most} updates or fewer only the middle is left when {trim} are trimmed a side")
    return None


def _multi_krum(options: Mapping[str, Any], most: int) -> Plain | None:
    return Plain("fedavg", "all updates were kept") if (options.get("keep") or 0) >= most else None


def _fedprox(options: Mapping[str, Any], _: int) -> Plain | None:
    return Plain("weighted", "mu is 0") if options.get("mu") == 0 else None


def _fedavgm(options: Mapping[str, Any], _: int) -> Plain | None:
    still = options.get("momentum") == 0 and options.get("learning_rate", 1) == 1
    return Plain("weighted", "the server has no momentum") if still else None


_REDUCTIONS: Mapping[str, Callable[[Mapping[str, Any], int], Plain | None]] = {
    "trimmed-mean": _trimmed_mean,
    "multi-krum": _multi_krum,
    "fedprox": _fedprox,
    "fedavgm": _fedavgm,
}
