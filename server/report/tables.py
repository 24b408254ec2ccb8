"""The tables of report.html, as texts: what the page says to those who run no script."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from server.names import enumerate_words, labels, short_names
from server.report.client_rows import ClientLine
from server.report.measures import NOT_JUDGED, ON_TRAINING_DATA
from server.report.roles import Parts
from server.results import ClientRow, Entry, RoundRow
from server.statistics.pairs import Comparison
from server.statistics.panel import LOSS, ROUNDS_TO_TARGET, Panel
from server.statistics.targets import Target
from server.summary import Table

_MOST_REFUSALS = 200  # lines of refused clients on the page; all are in clients.csv
_COMPARISON = (
    "a", "b", "metric", "seeds", "mean a", "mean b", "a - b", "interval", "g", "p adj.", "verdict on a"
)  # fmt: skip
_METRICS = {
    "test_accuracy": "accuracy, points",
    "test_loss": "loss, nats",
    "rounds_to_target": "rounds to target",
}


def round_tables(rounds: Iterable[RoundRow]) -> dict[str, Table]:
    """Per scenario the test accuracy of every strategy in every round, the mean over seeds, and who is ahead."""
    rounds = tuple(rounds)
    names = short_names(row.strategy for row in rounds)
    values: dict[str, dict[int, dict[str, list[float]]]] = {}
    for row in rounds:
        by_round = values.setdefault(row.scenario, defaultdict(lambda: defaultdict(list)))
        by_round[row.round][row.strategy].append(row.test_accuracy)
    tables = {}
    for scenario, by_round in values.items():
        means = {number: {name: fmean(some) for name, some in by_round[number].items()} for number in sorted(by_round)}
        strategies = list(dict.fromkeys(row.strategy for row in rounds if row.scenario == scenario))
        tables[scenario] = Table(
            headers=("round", *(names[name] for name in strategies), "ahead"),
            rows=tuple(
                (
                    str(number),
                    *(_percent(mean.get(name)) for name in strategies),
                    _ahead({names[name]: score for name, score in mean.items()}),
                )
                for number, mean in means.items()
            ),
            note="",
        )
    return tables


def comparison_table(comparisons: Iterable[Comparison], panels: Sequence[Panel]) -> Table:
    """Every pair of strategies after the last round of its scenario, in every metric."""
    last = {panel.scenario: panel.last for panel in panels}
    rows = [row for row in comparisons if row.round == last[row.scenario]]
    names = short_names(name for panel in panels for name in panel.strategies)
    several = len(panels) > 1
    return Table(
        headers=(*(("scenario",) if several else ()), *_COMPARISON),
        rows=tuple(
            (*((row.scenario,) if several else ()), names[row.a], names[row.b], *_compared(row)) for row in rows
        ),
        note="Paired by seed. p adj.: of a t-test (a sign test where it has no meaning), after Holm, over the pairs of"
        " one scenario and metric. The interval excludes 0 exactly where p adj. < 0.05. g: Hedges' g_z.",
    )


def target_table(targets: Sequence[Target], panels: Sequence[Panel]) -> Table:
    """Rounds to the target accuracy, with the runs that never got there and those that diverged."""
    names = short_names(row.strategy for row in targets)
    several = len(panels) > 1
    share = f"{100 * next((row.target for row in targets), 0.9):g}"
    return Table(
        headers=(
            *(("scenario",) if several else ()),
            *("strategy", "runs", f"reached {share} %", "median round", "95 % interval", "diverged"),
        ),
        rows=tuple(
            (
                *((row.scenario,) if several else ()),
                names[row.strategy],
                str(row.seeds),
                str(row.reached),
                "-" if row.median is None else f"{row.median:g}",
                _ends(row),
                str(row.diverged),
            )
            for row in targets
        ),
        note="A run that never reaches the target is censored, not dropped: the median is that of Kaplan and Meier's"
        " curve, empty where fewer than half get there. Diverged: ended worse than the initial model, or gave up.",
    )


def fairness_table(lines: Mapping[Entry, Sequence[ClientLine]], parts: Mapping[str, Mapping[int, Parts]]) -> Table:
    """Per scenario and strategy how the global model does on the clients' own training data; means over seeds."""
    found: dict[Entry, list[tuple[list[ClientLine], int]]] = defaultdict(list)
    for entry, some in lines.items():
        if all(line.norm is None for line in some):  # of an older run, or not a single update was used
            continue
        known = parts.get(entry.scenario, {}).get(entry.seed)
        fair = [line for line in some if known is None or line.client not in known.ignored]
        found[entry._replace(seed=0)].append((fair, sum(line.refused for line in some)))
    names = labels(found.keys())
    rows = []
    for entry, runs in found.items():
        before = [[line.before for line in fair if line.before is not None] for fair, _ in runs]
        before = [some for some in before if some]
        rows.append(
            (
                names[entry],
                _percent(_mean(min(some) for some in before)),
                _percent(_mean(fmean(some) for some in before)),
                _points(_mean(max(some) - min(some) for some in before)),
                _percent(_mean(line.after for fair, _ in runs for line in fair)),
                _plain(_mean(line.norm for fair, _ in runs for line in fair)),
                _plain(_mean(line.cosine for fair, _ in runs for line in fair)),
                str(sum(refused for _, refused in runs)),
            )
        )
    return Table(
        headers=("strategy", "worst %", "mean %", "spread", "after %", "drift", "cosine", "rej."),
        rows=tuple(rows),
        note="The global model with which the last measured round began, before any training in it,"
        f" {ON_TRAINING_DATA}: worst client, mean, best minus worst in points. after: each client's own model after"
        f" training. {NOT_JUDGED}"
        " drift: L2 norm of its update; cosine: to the step of the global model. Attackers and corrupted clients do"
        " not count here. rej.: updates that were rejected or failed, of all clients and rounds.",
    )


def refusal_table(clients: Iterable[ClientRow], entries: Sequence[Entry]) -> Table:
    """Who was rejected or failed, in which rounds, and why; what is alike but for client or strategy is one line."""
    rounds: dict[tuple[Entry, str, str, int], list[int]] = defaultdict(list)
    for row in clients:
        if row.status != "ok":
            rounds[row.entry, row.status, row.reason, row.client].append(row.round)
    numbers: dict[tuple[Entry, str, str, str], list[int]] = defaultdict(list)
    for (entry, status, reason, client), some in rounds.items():
        numbers[entry, status, reason, spans(some)].append(client)
    who: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (entry, status, reason, when), some in numbers.items():
        who[entry.scenario, str(entry.seed), spans(some), when, status, reason].append(entry.strategy)
    of_run: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        of_run[entry.scenario, str(entry.seed)].add(entry.strategy)
    names = short_names(entry.strategy for entry in entries)
    left = len(who) - _MOST_REFUSALS
    return Table(
        headers=("scenario", "seed", "strategies", "clients", "rounds", "status", "reason"),
        rows=tuple(
            (scenario, seed, _all_or_named(some, of_run[scenario, seed], names), *rest)
            for (scenario, seed, *rest), some in list(who.items())[:_MOST_REFUSALS]
        ),
        note=f"{left} more lines like these are in clients.csv." if left > 0 else "",
    )


def _all_or_named(some: Sequence[str], of_run: set[str], names: Mapping[str, str]) -> str:
    """Which strategies; "all" of several."""
    return "all" if len(of_run) > 1 and of_run <= set(some) else enumerate_words(names.get(name, name) for name in some)


def spans(numbers: Iterable[int]) -> str:
    """`1-4, 6`: ascending numbers with runs of them drawn together."""
    told: list[list[int]] = []
    for number in sorted(set(numbers)):
        if told and told[-1][-1] == number - 1:
            told[-1][1:] = [number]
        else:
            told.append([number])
    return ", ".join("-".join(map(str, some)) for some in told)


def shard_tables(parts: Mapping[str, Mapping[int, Parts]]) -> dict[str, Table]:
    """How many examples of each class every client holds: of each scenario those of its first seed."""
    tables = {}
    for scenario, of_scenario in parts.items():
        for seed, one in list(of_scenario.items())[:1]:
            if one.counts:
                tables[scenario] = _shard_table(one, seed)
    return tables


def _shard_table(parts: Parts, seed: int) -> Table:
    shown = parts.counts[:_MOST_REFUSALS]
    left = len(parts.counts) - len(shown)
    p_value = "" if parts.p_value is None else f"chi-square {_p_text(parts.p_value)} for equal shares of labels. "
    return Table(
        headers=("client", *(f"class {label}" for label in range(len(shown[0]))), "all"),
        rows=tuple(
            (f"{k} ({parts.words[k]})" if k in parts.words else str(k), *map(str, row), str(sum(row)))
            for k, row in enumerate(shown)
        ),
        note=f"{p_value}Seed {seed}." + (f" {left} more clients are in run.json." if left else ""),
    )


def weight_table(results: Mapping[str, Mapping[str, object]]) -> Table:
    """How each contestant ended, and the hash of its final weights."""
    return Table(
        headers=("contestant", "rounds", "ended", "SHA-256"),
        rows=tuple(
            (key, *(str(result.get(name) or "") for name in ("rounds", "ended", "sha256")))
            for key, result in results.items()
        ),
        note="",
    )


def _p_text(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.3g}"


def _compared(row: Comparison) -> tuple[str, ...]:
    scale, digits = (1, 3) if row.metric == LOSS.name else (1, 2) if row.metric == ROUNDS_TO_TARGET.name else (100, 2)

    def text(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{scale * value:{sign}.{digits}f}"

    interval = "-" if row.low is None else f"{text(row.low, '+')} to {text(row.high, '+')}"
    p_value = "-" if row.p_adjusted is None else "< 0.0001" if row.p_adjusted < 0.0001 else f"{row.p_adjusted:.4f}"
    effect = "-" if row.effect is None else f"{row.effect:.2f}"
    means = text(row.mean_a), text(row.mean_b), text(row.difference, "+")
    return _METRICS.get(row.metric, row.metric), str(row.seeds), *means, interval, effect, p_value, row.verdict


def _ends(row: Target) -> str:
    """The median's interval, which often has no end."""
    if row.low is None:
        return "-"
    return f"from {row.low:g}" if row.high is None else f"{row.low:g} to {row.high:g}"


def _ahead(scores: Mapping[str, float]) -> str:
    best = [name for name, score in scores.items() if score == max(scores.values())]
    return enumerate_words(best) if len(best) < len(scores) else "-"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
