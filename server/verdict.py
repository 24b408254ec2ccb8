"""Sentences that say who leads and who stopped, without calling noise a win."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from server.names import enumerate_words, labels, percent, short_names
from server.results import Entry, RoundRow

_NAMED = 6  # contestants that a sentence names one by one

_Scores = tuple[float, ...]  # a strategy's test accuracy with each seed


def verdict(rounds: Sequence[RoundRow]) -> list[str]:
    """Who leads, one sentence per scenario, in the last round that all strategies have with all seeds.

    Strategies that fell behind the furthest by more than a fifth of its rounds, and by more than one, did not stay in
    the race and are left out. One seed says nothing about a gap, and that is said; so is with how many seeds a leader
    is ahead.
    """
    names = short_names(row.strategy for row in rounds)
    scenarios = dict.fromkeys(row.scenario for row in rounds)
    return [
        (f"{scenario}: " if len(scenarios) > 1 else "") + _lead([r for r in rounds if r.scenario == scenario], names)
        for scenario in scenarios
    ]


def stops(rounds: Iterable[RoundRow], ended: Mapping[Entry, str]) -> list[str]:
    """Sentences about the contestants that stopped early: who, after which round, for what reason.

    Args:
        rounds: all rows.
        ended: how each contestant ended, `finished` or the reason.
    """
    last: dict[Entry, int] = dict.fromkeys(ended, 0)
    for row in rounds:
        last[row.entry] = max(row.round, last.get(row.entry, 0))
    names = labels(last.keys())
    stopped: dict[tuple[str, int], list[str]] = defaultdict(list)
    for entry, reason in ended.items():
        if reason != "finished":
            stopped[reason.rstrip("."), last[entry]].append(names[entry])
    return [
        f"{enumerate_words(who) if len(who) <= _NAMED else f'{len(who)} contestants'} stopped after round {number}:"
        f" {reason}."
        for (reason, number), who in stopped.items()
    ]


def _lead(rounds: Sequence[RoundRow], names: Mapping[str, str]) -> str:
    final = _last_common_round(rounds)
    if final == 0:
        return "No round was finished."
    scores = _scores(rounds, final)
    ranks = sorted({fmean(score) for score in scores.values()}, reverse=True)
    leaders, *others = ([name for name, score in scores.items() if fmean(score) == mean] for mean in ranks)
    who, when = enumerate_words(names[name] for name in leaders), f"after {final} round{'s' * (final > 1)}"
    best = [scores[name] for name in leaders]
    if not others:
        return f"{who} {'stand together at' if len(leaders) > 1 else 'stands at'} {_mean(best)} {when}."
    next_best = [scores[name] for name in others[0]]
    sentence = (
        f"{who} lead{'s' * (len(leaders) == 1)} {when} with {_mean(best)}: {100 * (ranks[0] - ranks[1]):.2f} points"
        f" before {enumerate_words(names[name] for name in others[0])} ({_mean(next_best)})"
    )
    seeds = len(best[0])
    if seeds == 1:
        return f"{sentence}. One seed: no interval, the gap may be noise."
    if len(set(best)) == len(set(next_best)) == 1:
        ahead = sum(one > other for one, other in zip(best[0], next_best[0], strict=True))
        sentence += f", ahead with {ahead} of {seeds} seeds"
    return f"{sentence}. No interval, so no win is claimed."


def _last_common_round(rounds: Sequence[RoundRow]) -> int:
    """The last round of all strategies, with all seeds, that stayed in the race."""
    reached: dict[Entry, int] = defaultdict(int)
    for row in rounds:
        reached[row.entry] = max(row.round, reached[row.entry])
    last: dict[str, int] = {}
    for entry, number in reached.items():
        last[entry.strategy] = min(number, last.get(entry.strategy, number))
    furthest = max(last.values())
    return min(number for number in last.values() if furthest - number <= max(1, furthest / 5))


def _scores(rounds: Sequence[RoundRow], number: int) -> dict[str, _Scores]:
    """The accuracies of one round, of the strategies that have it with all seeds."""
    seeds = sorted({row.seed for row in rounds})
    found = {(row.strategy, row.seed): row.test_accuracy for row in rounds if row.round == number}
    return {
        strategy: tuple(found[strategy, seed] for seed in seeds)
        for strategy in dict.fromkeys(row.strategy for row in rounds)
        if all((strategy, seed) in found for seed in seeds)
    }


def _mean(scores: Sequence[_Scores]) -> str:
    """The mean over seeds of strategies that share it, and the sd where they share that too."""
    spread = f", sd {100 * stdev(scores[0]):.2f}" if len(set(scores)) == 1 and len(scores[0]) > 1 else ""
    return percent(fmean(scores[0])) + spread
