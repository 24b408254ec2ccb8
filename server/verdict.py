"""Sentences that say who leads, whom it beats and who stopped, without calling noise a win."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from server.names import enumerate_words, labels, percent, short_names
from server.results import Entry, RoundRow
from server.statistics.diverged import gave_up
from server.statistics.estimate import estimate
from server.statistics.pairs import Comparison
from server.statistics.panel import ACCURACY, Panel
from server.statistics.words import BETTER, NO_DIFFERENCE, NOT_ENOUGH

_NAMED = 8  # contestants that a sentence names one by one
_DETAILED = 2  # strategies of which a sentence says all numbers


def verdict(panels: Sequence[Panel], comparisons: Iterable[Comparison], diverged: Collection[Entry] = ()) -> list[str]:
    """Who leads after the last round of each scenario, a few sentences in one text a scenario.

    With several seeds: the leader's mean test accuracy with its 95 % interval; whom it is better than, by the paired
    test of `server.statistics.pairs`; beside whom no difference is shown, or more seeds are needed. One seed says
    nothing about a gap, and that is said. Strategies that are the same are named together. Runs that diverged are
    counted.

    Args:
        panels: the scenarios.
        comparisons: of all of them, see `server.statistics.pairs.compare`.
        diverged: contestants that diverged or gave up.
    """
    names = short_names(strategy for panel in panels for strategy in panel.strategies)
    found: dict[str, dict[tuple[str, str], Comparison]] = defaultdict(dict)
    last = {panel.scenario: panel.last for panel in panels}
    for row in comparisons:
        if row.metric == ACCURACY.name and row.round == last[row.scenario]:
            found[row.scenario][row.a, row.b] = row
    said = []
    for panel in panels:
        text = _lead(_Standing(panel, names, found[panel.scenario]))
        lost = _lost(panel, names, diverged)
        said.append((f"{panel.scenario}: " if len(panels) > 1 else "") + (f"{text} {lost}" if lost else text))
    return said


def stops(rounds: Iterable[RoundRow], ended: Mapping[Entry, str]) -> list[str]:
    """Sentences about the contestants that stopped early: who, after which round, for what reason.

    Args:
        rounds: all rows.
        ended: how each contestant ended, `finished` or the reason.
    """
    last: dict[Entry, int] = dict.fromkeys(ended, 0)
    furthest: dict[str, int] = defaultdict(int)
    for row in rounds:
        last[row.entry] = max(row.round, last.get(row.entry, 0))
        furthest[row.scenario] = max(row.round, furthest[row.scenario])
    stopped: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry, reason in ended.items():
        if reason != "finished":
            stopped[reason.rstrip("."), last[entry]].append(entry)
    said = [
        f"{_who(some, last.keys())} stopped after round {number}: {reason}."
        for (reason, number), some in stopped.items()
    ]
    if any(last[entry] < furthest[entry.scenario] for entry in gave_up(ended)):
        said.append("In later rounds a run that gave up counts with the last model that it had.")
    return said


def _who(some: Sequence[Entry], everyone: Collection[Entry]) -> str:
    """Contestants by name, with their seeds where there are several; of very many the number."""
    names = labels({entry._replace(seed=0): None for entry in everyone}.keys())
    seeds: dict[str, list[str]] = defaultdict(list)
    for entry in some:
        seeds[names[entry._replace(seed=0)]].append(str(entry.seed))
    if len(some) > _NAMED:
        return f"{len(some)} contestants"
    if len({entry.seed for entry in everyone}) == 1:
        return enumerate_words(seeds)
    return enumerate_words(
        f"{name} (seed{'s' * (len(which) > 1)} {enumerate_words(which)})" for name, which in seeds.items()
    )


@dataclass(frozen=True)
class _Group:
    """Strategies that have the same accuracy with every seed."""

    first: str  # as in the rows
    names: tuple[str, ...]  # of all of them, for people
    scores: tuple[float, ...]  # by seed, 0..1

    @property
    def name(self) -> str:
        return enumerate_words(self.names)

    @property
    def mean(self) -> float:
        return fmean(self.scores)


class _Standing:
    """Who stands where after a panel's last round, with the seeds that all strategies have."""

    def __init__(
        self, panel: Panel, names: Mapping[str, str], comparisons: Mapping[tuple[str, str], Comparison]
    ) -> None:
        self.round, self._comparisons = panel.last, comparisons
        final = panel.accuracy[:, :, panel.last]
        final = final[:, (final == final).all(axis=0)]  # NaN is not equal to itself
        alike: dict[tuple[float, ...], list[str]] = defaultdict(list)
        for strategy, scores in zip(panel.strategies, final.tolist(), strict=True):
            alike[tuple(scores)].append(strategy)
        self.groups = [_Group(some[0], tuple(names[name] for name in some), scores) for scores, some in alike.items()]

    def against(self, one: _Group, other: _Group) -> Comparison:
        """The comparison of two groups from the view of the first."""
        if (row := self._comparisons.get((one.first, other.first))) is not None:
            return row
        return self._comparisons[other.first, one.first].turned()


def _lead(standing: _Standing) -> str:
    if standing.round == 0:
        return "No round was finished."
    ranks = sorted({group.mean for group in standing.groups}, reverse=True)
    leaders, *others = ([group for group in standing.groups if group.mean == mean] for mean in ranks)
    who, several = _names(leaders), len(leaders) > 1 or len(leaders[0].names) > 1
    when = f"after {standing.round} round{'s' * (standing.round > 1)}"
    if len(standing.groups) == 1:
        return f"{who} {'stand together at' if several else 'stands at'} {_mean(leaders[0])} {when}."
    sentence = f"{who} {'lead' if several else 'leads'} {when} with {_mean(leaders[0])}"
    if len(leaders[0].scores) > 1:
        return " ".join([f"{sentence}.", *_judged(standing, leaders, alone=not several)])
    if not others:  # with one seed the same score is the same group
        return f"{sentence}."
    gap = 100 * (ranks[0] - ranks[1])
    return (
        f"{sentence}: {gap:.2f} points before {_names(others[0])} ({percent(ranks[1])})."
        " One seed: no interval, the gap may be noise."
    )


def _judged(standing: _Standing, leaders: Sequence[_Group], *, alone: bool) -> list[str]:
    """What the tests say of the first leader beside each of the others; a leader that is alone is just "it"."""
    leader = leaders[0]
    rows = [(group, standing.against(leader, group)) for group in standing.groups if group not in leaders]
    said = []
    ties = [standing.against(leader, group) for group in leaders[1:]]
    if open_ties := [row for row in ties if row.verdict.startswith(NOT_ENOUGH)]:
        said.append(f"More seeds are needed to tell them apart{_needed(open_ties[0])}.")
    if beaten := [(group, row) for group, row in rows if row.verdict.startswith(BETTER)]:
        who = "It is" if alone else f"{leader.name} {'are' if len(leader.names) > 1 else 'is'}"
        said.append(f"{who} better than {_beaten(beaten)}.")
    near = [group for group, row in rows if row.verdict.startswith(NO_DIFFERENCE)]
    open_ = [f"{group.name}{_needed(row)}" for group, row in rows if row.verdict.startswith(NOT_ENOUGH)]
    parts = []
    if near:
        parts.append(f"no difference from {_names(near)} is shown (within {100 * ACCURACY.margin:g} point)")
    if open_:
        parts.append(f"more seeds are needed to judge the gap to {enumerate_words(open_)}")
    if parts:
        text = "; ".join(parts)
        said.append(f"{text[0].upper()}{text[1:]}.")
    return said


def _names(groups: Iterable[_Group]) -> str:
    return enumerate_words(name for group in groups for name in group.names)


def _beaten(rows: Sequence[tuple[_Group, Comparison]]) -> str:
    """Whom, by how much, and how sure that is."""
    if len(rows) <= _DETAILED:
        return " and than ".join(f"{group.name} by {_gap(row)}" for group, row in rows)
    gaps = [row.difference for _, row in rows if row.difference is not None]
    most = max(row.p_adjusted for _, row in rows if row.p_adjusted is not None)
    by = f"by {100 * min(gaps):.2f} to {100 * max(gaps):.2f} points " if gaps else ""
    return f"{_names(group for group, _ in rows)} {by}(each {_p(most, upto=True)})"


def _gap(row: Comparison) -> str:
    assert row.difference is not None and row.p_adjusted is not None  # an accuracy that was tested
    sure = _p(row.p_adjusted)
    if row.low is not None and row.high is not None:
        sure = f"95 % {100 * row.low:.2f} to {100 * row.high:.2f}, {sure}"
    return f"{100 * row.difference:.2f} points ({sure})"


def _p(value: float, *, upto: bool = False) -> str:
    if value < 0.0001:
        return "p < 0.0001"
    return f"p {'<=' if upto else '='} {value:.2g}"


def _needed(row: Comparison) -> str:
    """How many, as the verdict says it."""
    note = row.verdict.partition("(")[2].partition(" needed")
    return f" ({note[0]})" if note[1] else ""


def _lost(panel: Panel, names: Mapping[str, str], diverged: Collection[Entry]) -> str:
    """Who diverged, and with how many seeds; `stops` tells of those that gave up."""
    lost, of = set(diverged), len(panel.seeds)
    told = []
    for strategy, stopped in zip(panel.strategies, panel.stopped.tolist(), strict=True):
        runs = zip(panel.seeds, stopped, strict=True)
        count = sum(Entry(panel.scenario, strategy, seed) in lost and not gone for seed, gone in runs)
        if count:
            told.append(f"{names[strategy]} ({count} of {of} seed{'s' * (of > 1)})")
    return f"Diverged, so ended worse than the initial model: {enumerate_words(told)}." if told else ""


def _mean(group: _Group) -> str:
    """The mean, and over several seeds half of its interval."""
    value = estimate(group.scores)
    if value.half is None:
        return percent(value.mean)
    return f"{100 * value.mean:.2f} ± {100 * value.half:.2f} % (95 % interval, {value.seeds} seeds)"
