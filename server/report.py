"""The report of a run: curves.png and report.html, one page that needs nothing else, not even a network."""

import base64
import json
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from server.files import write_atomic
from server.names import enumerate_words, labels, short_names
from server.plot import DARK, LIGHT, draw_curves
from server.report_page import PAGE
from server.results import ClientRow, RunFolder
from server.summary import Outcome, Table, summary_table

_MOST_FAILURES = 200  # rows of failed clients on the page; all are in clients.csv


def write_report(folder: RunFolder, outcome: Outcome) -> Path:
    """Write curves.png and report.html from what the folder holds; before the first row there are no curves.

    Returns:
        The path of the page.
    """
    import jinja2

    title, subtitle = _titles(outcome)
    curves = {}
    if outcome.rounds:
        write_atomic(folder.curves_path, draw_curves(outcome.rounds, outcome.same, title, subtitle))
        for name, ink in (("light", LIGHT), ("dark", DARK)):  # the page has the titles already
            curves[name] = base64.b64encode(draw_curves(outcome.rounds, outcome.same, ink=ink)).decode()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(PAGE)
    failures = [row for row in outcome.clients if row.status != "ok"]
    run = outcome.run
    page = template.render(
        title=title,
        subtitle=subtitle,
        folder=folder.path.name,
        version=run.get("fedarena", ""),
        status=run.get("status", "running"),
        verdict=outcome.verdict,
        curves=curves,
        seeds=len({row.seed for row in outcome.rounds}),
        summary=summary_table(outcome.summaries),
        rounds=_round_tables(outcome),
        same=[one.sentence for one in outcome.same],
        failures=_failure_table(failures[:_MOST_FAILURES], outcome),
        failures_left=max(0, len(failures) - _MOST_FAILURES),
        p_value=run.get("data", {}).get("p_value"),
        shards=_shard_table(run.get("data", {}).get("counts")),
        results=run.get("results", {}),
        facts={
            "Configuration": _texts(run.get("config", {})),
            "Data": _texts({"sha256": run.get("data", {}).get("sha256", "unknown")}),
            "Versions": _texts(run.get("versions", {})),
        },
        command=shlex.join(run.get("command", ())),
    )
    write_atomic(folder.report_path, page.encode())
    return folder.report_path


def _titles(outcome: Outcome) -> tuple[str, str]:
    """What was trained on what, and with which seeds."""
    config = outcome.run.get("config", {})
    words = [str(config.get("dataset", "federated run"))]
    words += [f"{config[count]} {count}" for count in ("clients", "rounds") if count in config]
    if not outcome.rounds:
        return ", ".join(words), ""
    seeds = sorted({row.seed for row in outcome.rounds})
    scenarios = list(dict.fromkeys(row.scenario for row in outcome.rounds))
    spread = f"mean (line) and range (band) of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    return ", ".join(words), ", ".join([*scenarios[:1], spread] if len(scenarios) == 1 else [spread])


def _round_tables(outcome: Outcome) -> dict[str, Table]:
    """Per scenario the test accuracy of every strategy in every round, the mean over seeds, and who is ahead."""
    names = short_names(row.strategy for row in outcome.rounds)
    tables = {}
    for scenario in dict.fromkeys(row.scenario for row in outcome.rounds):
        values: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in outcome.rounds:
            if row.scenario == scenario:
                values[row.round][row.strategy].append(row.test_accuracy)
        means = {number: {name: fmean(some) for name, some in values[number].items()} for number in sorted(values)}
        strategies = list(dict.fromkeys(row.strategy for row in outcome.rounds if row.scenario == scenario))
        tables[scenario] = Table(
            headers=("round", *(names[name] for name in strategies), "ahead"),
            rows=tuple(
                (
                    str(number),
                    *(f"{100 * mean[name]:.2f}" if name in mean else "-" for name in strategies),
                    _ahead({names[name]: score for name, score in mean.items()}),
                )
                for number, mean in means.items()
            ),
            note="",
        )
    return tables


def _ahead(scores: Mapping[str, float]) -> str:
    best = [name for name, score in scores.items() if score == max(scores.values())]
    return enumerate_words(best) if len(best) < len(scores) else "-"


def _failure_table(failures: list[ClientRow], outcome: Outcome) -> Table:
    names = labels(dict.fromkeys(row.entry for row in outcome.rounds).keys())
    return Table(
        headers=("contestant", "round", "client", "status", "reason"),
        rows=tuple(
            (names.get(row.entry, row.entry.key), str(row.round), str(row.client), row.status, row.reason)
            for row in failures
        ),
        note="",
    )


def _shard_table(counts: Any) -> Table | None:
    """How many examples of each class every client holds; None if the run does not say."""
    if not isinstance(counts, list) or not counts or not all(isinstance(row, list) for row in counts):
        return None
    return Table(
        headers=("client", *(f"class {label}" for label in range(len(counts[0]))), "all"),
        rows=tuple((str(k), *map(str, row), str(sum(row))) for k, row in enumerate(counts)),
        note="",
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
