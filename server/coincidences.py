"""Which strategies gave the same numbers to the bit, and the reason for it that the clients' rows bear out."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.names import enumerate_words, short_names
from server.results import ClientRow, Entry, RoundRow

_RULES = ("fedavg", "weighted", "fednova", "fedmedian", "matched")
_UNWEIGHTED = {"fedavg", "fedmedian", "matched"}

_Bits = tuple[str, str, str | None]  # accuracy, loss, and the hash of the final weights at a contestant's last round
_Trace = dict[tuple[int, int], _Bits]  # by (seed, round)


@dataclass(frozen=True)
class Coincidence:
    """Strategies whose every round was the same to the bit, with every seed, in these scenarios."""

    strategies: tuple[str, ...]  # as in the rows, in order of appearance
    scenarios: tuple[str, ...]  # empty: in every scenario of the run
    sentence: str  # says it with the reason


def coincidences(
    rounds: Sequence[RoundRow], clients: Sequence[ClientRow], hashes: Mapping[Entry, str] | None = None
) -> list[Coincidence]:
    """The groups of strategies that coincided.

    Args:
        rounds: all rows of a run. Rounds that only one of two strategies finished are not compared; two that share
            no round but the initial model are no group.
        clients: all rows of the run's clients; the reason is read from them, never guessed.
        hashes: the SHA-256 of final weights. Two strategies that ended in the same round with different weights did
            not coincide, whatever their rows say.
    """
    traces = _traces(rounds, hashes or {})
    names = short_names(row.strategy for row in rounds)
    found: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for scenario, by_strategy in traces.items():
        groups: list[list[str]] = []
        for strategy, trace in by_strategy.items():
            for group in groups:
                if _same(by_strategy[group[0]], trace):
                    group.append(strategy)
                    break
            else:
                groups.append([strategy])
        for group in groups:
            if len(group) > 1:
                rows = [row for row in clients if row.scenario == scenario and row.strategy in group]
                found[tuple(group), _reason(group, rows, names)].append(scenario)
    return [
        Coincidence(group, (), _sentence(group, (), reason, names))
        if len(where) == len(traces)
        else Coincidence(group, tuple(where), _sentence(group, where, reason, names))
        for (group, reason), where in found.items()
    ]


def _traces(rounds: Sequence[RoundRow], hashes: Mapping[Entry, str]) -> dict[str, dict[str, _Trace]]:
    """Per scenario and strategy what must be equal."""
    last: dict[Entry, int] = defaultdict(int)
    for row in rounds:
        last[row.entry] = max(last[row.entry], row.round)
    traces: dict[str, dict[str, _Trace]] = defaultdict(lambda: defaultdict(dict))
    for row in rounds:
        weights = hashes.get(row.entry) if row.round == last[row.entry] else None
        bits = (row.test_accuracy.hex(), row.test_loss.hex(), weights)  # hex: NaN equals NaN
        traces[row.scenario][row.strategy][row.seed, row.round] = bits
    return traces


def _same(one: _Trace, other: _Trace) -> bool:
    common = one.keys() & other.keys()
    return any(number > 0 for _, number in common) and all(_equal_bits(one[key], other[key]) for key in common)


def _equal_bits(one: _Bits, other: _Bits) -> bool:
    return one[:2] == other[:2] and (one[2] is None or other[2] is None or one[2] == other[2])


def _sentence(group: Sequence[str], where: Sequence[str], reason: str, names: Mapping[str, str]) -> str:
    place = f"In {enumerate_words(where)}, " if where else ""
    return f"{place}{enumerate_words(names[name] for name in group)} coincided to the bit: {reason}."


def _reason(group: Sequence[str], rows: Sequence[ClientRow], names: Mapping[str, str]) -> str:
    """Why the strategies were one rule; options may change a rule, so only those of `plain_rule` are known."""
    from server.plain_rules import plain_rule  # imports Flower

    used = _by_round(row for row in rows if row.status == "ok")
    most = max(map(len, used), default=0)
    if most == 0:
        return "no client's update was ever used"
    plain = {name: plain_rule(name, most) for name in group}
    known = {name: one for name, one in plain.items() if one.rule in _RULES}
    reason = _condition({one.rule for one in known.values()}, used, most) if len(known) > 1 else None
    if reason is None:
        return "reason unknown"
    parts = [
        *(f"in {names[name]} {one.why}" for name, one in known.items() if one.why and most > 1),
        *filter(None, [reason]),
    ]
    unknown = [names[name] for name in group if name not in known]
    parts += [f"for {enumerate_words(unknown)} the reason is unknown"] if unknown else []
    return "; ".join(parts) or "reason unknown"


def _by_round(rows: Iterable[ClientRow]) -> list[list[ClientRow]]:
    """Of each contestant and round."""
    found: dict[Hashable, list[ClientRow]] = defaultdict(list)
    for row in rows:
        found[row.entry, row.round].append(row)
    return list(found.values())


def _condition(known: set[str], per_round: Sequence[Sequence[ClientRow]], most: int) -> str | None:
    """What the rows show that makes these rules one; "" if they are one, None if the rows do not show enough."""
    if most < 2:
        return "a single update in each round leaves a rule nothing to choose"
    if len(known) == 1:
        return ""
    rows = [row for some in per_round for row in some]

    def equal(fact: str) -> bool:
        values = [{getattr(row, fact) for row in some} for some in per_round]
        return all(len(one) == 1 and None not in one for one in values)

    parts = []
    if known & _UNWEIGHTED and known & {"weighted", "fednova"}:
        if not equal("num_examples"):
            return None
        parts.append("equal shards" + _each(rows, "num_examples", "examples"))
    if "fednova" in known:
        if not equal("local_norm"):
            return None
        if equal("local_steps"):
            parts.append("equal local steps" + _each(rows, "local_steps", ""))
        else:
            parts.append("equal local norms" + _each(rows, "local_norm", ""))
    if "fedmedian" in known:
        if most > 2:
            return None
        parts.append("no more than two updates a round")
    if "matched" in known:  # or it would have come to other bits
        parts.append("hidden units that needed no other order")
    rule = "plain mean" if known & _UNWEIGHTED else "mean weighted by examples"
    return f"{enumerate_words(parts)} make them one rule (the {rule})" if parts else None


def _each(rows: Sequence[ClientRow], fact: str, unit: str) -> str:
    """The value, when it is the same for all clients, seeds and rounds."""
    values = {getattr(row, fact) for row in rows}
    return f" ({values.pop()}{' ' * bool(unit)}{unit} each)" if len(values) == 1 else ""
