"""report.html: one page that needs nothing else, not even a network, and is of use without its scripts, too."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.page_parts import STYLE, page_environment
from server.report import page_style, script
from server.report.client_rows import client_lines, fit
from server.report.embedded import embed
from server.report.page_template import PAGE
from server.report.plotly_js import hash_source, pack_plotly
from server.report.roles import parts_of
from server.report.static_picture import shrink
from server.report.tables import (
    comparison_table,
    fairness_table,
    refusal_table,
    round_tables,
    shard_tables,
    target_table,
    weight_table,
)
from server.statistics.panel import Panel
from server.summary import Outcome, summary_table

_MOST_LINES: Final = 12_000  # of clients on the page, over all scenarios, strategies and seeds
_MOST_OPEN: Final = 16  # lines of a table that is open at first


def render(outcome: Outcome, folder: str, title: str, subtitle: str, curves: bytes | None) -> str:
    """The page.

    Args:
        outcome: what it tells.
        folder: what the run is called.
        title: what was trained on what.
        subtitle: a fainter line.
        curves: a picture of the curves, a PNG, for where no script runs; None before the first row.

    Returns:
        HTML. Texts of others, such as strategies' names, are escaped; no script runs but this page's own.
    """
    run = outcome.run
    parts, panels = parts_of(run), outcome.panels
    template = page_environment().from_string(PAGE)
    sources: Sequence[Mapping[str, Any]] = run.get("sources") or [{**run, "folder": folder}]
    lines = client_lines(outcome.clients, outcome.local)
    kept = fit(lines, sorted({entry.seed for entry in lines}), _MOST_LINES)
    scripts = _scripts({"name": folder, **embed(outcome, parts, kept)}) if curves else None
    return template.render(
        style=STYLE + page_style.STYLE,
        scripts=scripts,
        title=title,
        subtitle=subtitle,
        folder=folder,
        version=run.get("fedarena", ""),
        status=run.get("status", "running"),
        verdict=[_by_scenario(line, panels) for line in outcome.verdict],
        same=[one.sentence for one in outcome.same],
        curves=base64.b64encode(shrink(curves)).decode() if curves else None,
        seeds=len({row.seed for row in outcome.rounds}),
        scenarios=[panel.scenario for panel in panels],
        names=1 + (len(panels) > 1),
        most_open=_MOST_OPEN,
        summary=summary_table(outcome.summaries, run.get("weights_by")),
        rounds=round_tables(outcome.rounds),
        comparisons=comparison_table(outcome.comparisons, panels),
        targets=target_table(outcome.targets, panels),
        lines_left=sum(map(len, lines.values())) - sum(map(len, kept.values())),
        measured=any(line.before is not None for some in lines.values() for line in some),
        fairness=fairness_table(lines, parts),
        refusals=refusal_table(outcome.clients, list(dict.fromkeys(row.entry for row in outcome.rounds))),
        shards=shard_tables(parts),
        written={name: facts.get("written", "") for name, facts in run.get("scenarios", {}).items()},
        commands={str(one.get("folder", "")): shlex.join(one.get("command", ())) for one in sources},
        config=_texts(run.get("config", {})),
        versions={str(one.get("folder", "")): _texts(one.get("versions", {})) for one in sources},
        data=_data(run),
        epsilon=_texts(run.get("dp_epsilon") or {}),
        weights=weight_table(run.get("results", {})),
    )


@dataclass(frozen=True)
class _Scripts:
    """What the page runs; everything is in it.

    Attributes:
        plotly: the library, packed.
        data: JSON.
        own: the page's own script.
        allowed: what a Content-Security-Policy says of them.
    """

    plotly: str
    data: Any
    own: Any
    allowed: str


def _scripts(data: dict[str, Any]) -> _Scripts:
    from markupsafe import Markup

    plotly = pack_plotly()
    # In a script element nothing ends before "</script", and "<" is nowhere in JSON but in texts.
    numbers = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return _Scripts(
        plotly.packed,
        Markup(numbers),  # noqa: S704
        Markup(script.SOURCE),  # noqa: S704
        f"'{plotly.source}' '{hash_source(script.SOURCE.encode())}'",
    )


def _by_scenario(line: str, panels: Sequence[Panel]) -> tuple[str, str]:
    """A sentence of the verdict as the scenario that it is about, empty where it does not say one, and the rest."""
    for panel in panels:
        if line.startswith(f"{panel.scenario}: "):
            return panel.scenario, line.removeprefix(f"{panel.scenario}: ")
    return "", line


def _data(run: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of all shards; of the first alone, in runs that say no more."""
    data = run.get("data", {})
    shards = data.get("shards")
    return _texts(shards if isinstance(shards, dict) and shards else {"sha256": data.get("sha256", "unknown")})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
