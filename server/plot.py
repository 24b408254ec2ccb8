"""Accuracy and loss per round, readable in grey print and to the colour-blind, also where lines coincide."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from server.coincidences import Coincidence
from server.names import enumerate_words, short_names
from server.results import RoundRow
from server.statistics.estimate import estimate

# Okabe and Ito's palette without yellow, ordered so that neighbours differ in grey too; five dashes and eight markers
# beside seven colours tell apart any number of strategies that one could still read.
BLUE, ORANGE, GREEN, PINK, RED, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8A8F98"
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY, GREY)
_DASHES = ((0, ()), (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.3, 1.5)), (0, (9, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_LINE, _RIBBON = 1.9, 3.2  # points: a line's width, and by how much a ribbon shows on top of the next
_MOST_MARKERS = 12  # per line
_MOST_TURNS = 6  # strategies take turns with markers, so that those of lines close to each other do not hide each other
_LEGEND_COLUMNS = 4
_LOWEST = 1e-3  # where a band ends at the latest: logarithmic axes have no zero
_REACH = 0.2  # how far bands may widen an axis, as a share of what the lines take
_WIDE = 1e3  # a loss axis with more than this ratio shows powers of ten
_PERFECT = 0.999  # accuracies above are drawn here: the axis is logarithmic in the error
_FEW_TICKS = 2  # so few of these places are in sight where accuracies hardly differ: plain steps then
# Places for ticks of the accuracy axis, the best first.
ACCURACY_TICKS = (
    (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, _PERFECT),
    (0.2, 0.4, 0.6, 0.7, 0.85, 0.92, 0.94, 0.96, 0.97, 0.998),
    (0.1, 0.3, 0.88, 0.91, 0.93, 0.985, 0.997),
)


@dataclass(frozen=True)
class Ink:
    """The colours of everything but the lines."""

    paper: str
    text: str
    faint: str
    grid: str


LIGHT = Ink(paper="#ffffff", text="#1c2733", faint="#5c6773", grid="#e3e7eb")
DARK = Ink(paper="#171c23", text="#e6e9ed", faint="#9aa5b1", grid="#2b323b")


def draw_curves(
    rounds: Sequence[RoundRow], same: Sequence[Coincidence], title: str = "", subtitle: str = "", ink: Ink = LIGHT
) -> bytes:
    """Draw a row of two panels per scenario; over several seeds the mean and, as a band, its 95 % interval.

    Strategies that coincide are drawn as ribbons of falling width with markers in turns, so that all of them stay
    visible, and the legend says so. The accuracy axis is logarithmic in the error: it shows the climb from chance and
    still tells 93 % from 94 %. The axes follow the lines: few seeds have bands so wide that they leave the panel.

    Args:
        rounds: the rows of a run, contestants in the order of the legend; at least one.
        same: which of them coincided.
        title: what was trained on what; empty: no room is left for the titles.
        subtitle: a second, fainter line.
        ink: for a light or a dark page.

    Returns:
        A PNG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    scenarios = list(dict.fromkeys(row.scenario for row in rounds))
    strategies = list(dict.fromkeys(row.strategy for row in rounds))
    names = _legend(strategies, same)
    columns = _legend_columns(names)
    legend_rows = math.ceil(len(strategies) / columns)
    head = 0.62 if title else 0.02  # inches, as those below
    top, panel_height, gap, bottom = head + 0.4 + 0.21 * legend_rows, 2.8, 0.72, 0.55
    height = top + panel_height * len(scenarios) + gap * (len(scenarios) - 1) + bottom
    with mpl.rc_context(look(ink)):
        figure = Figure(figsize=(10, height), dpi=160)
        panels = figure.subplots(len(scenarios), 2, squeeze=False)
        figure.subplots_adjust(0.074, bottom / height, 0.985, 1 - top / height, wspace=0.15, hspace=gap / panel_height)
        for scenario, pair in zip(scenarios, panels, strict=True):
            rows = [row for row in rounds if row.scenario == scenario]
            groups = [one.strategies for one in same if not one.scenarios or scenario in one.scenarios]
            styles = _styles(strategies, groups)
            for panel, axis in zip(pair, (_ACCURACY, _LOSS), strict=True):
                bands = [
                    _draw_line(panel, [row for row in rows if row.strategy == strategy], axis.of, styles[strategy], ink)
                    for strategy in strategies
                ]
                _make_room(panel, [band for band in bands if band is not None], axis)
                panel.margins(x=0.02)
                panel.xaxis.get_major_locator().set_params(integer=True)
            place = f"{scenario}: " if len(scenarios) > 1 else ""
            pair[0].set_title(f"{place}test accuracy", loc="left")
            pair[1].set_title(f"{place}test loss (cross-entropy, nats)", loc="left")
            scale_accuracy(pair[0])
            scale_loss(pair[1])
        for panel in panels[-1]:
            panel.set_xlabel("round")
        figure.text(0.012, 1 - 0.16 / height, title, size=14, weight="bold", va="top")
        figure.text(0.012, 1 - 0.45 / height, subtitle, color=ink.faint, va="top")
        figure.legend(
            [_handle(style) for style in _styles(strategies, [one.strategies for one in same]).values()],
            names,
            loc="upper left",
            bbox_to_anchor=(0.003, 1 - head / height),
            ncols=columns,
            handlelength=3.2,
            columnspacing=2.2,
        )
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=160)
    return out.getvalue()


@dataclass(frozen=True)
class _Style:
    """How one strategy's line looks."""

    colour: str
    marker: str
    dashes: tuple[float, tuple[float, ...]]
    width: float  # points
    turn: int  # markers of different turns stand in different rounds
    turns: int  # how many turns there are, at least
    alone: bool  # coincides with nothing
    inner: bool  # lies on the ribbon of a strategy that coincides with it


def _styles(strategies: Sequence[str], groups: Iterable[Sequence[str]]) -> Mapping[str, _Style]:
    styles = {}
    group_of = {name: group for group in groups for name in group}
    for index, name in enumerate(strategies):
        group = group_of.get(name, (name,))
        place = group.index(name)
        styles[name] = _Style(
            colour=COLOURS[index % len(COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            dashes=_DASHES[0 if len(group) > 1 else index % len(_DASHES)],
            width=_LINE + _RIBBON * (len(group) - 1 - place),
            turn=index,
            turns=min(max(len(strategies), 3), _MOST_TURNS),
            alone=len(group) == 1,
            inner=place > 0,
        )
    return styles


def _draw_line(
    panel: Any, rows: Sequence[RoundRow], value: Callable[[RoundRow], float], style: _Style, ink: Ink
) -> _Band | None:
    """Draw the mean, and its interval without giving it room; returns the latter, None where there is none."""
    from matplotlib.patheffects import Normal, Stroke

    by_round: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        by_round[row.round].append(value(row))
    if not by_round:  # not part of this scenario, or not yet
        return None
    x = sorted(by_round)
    y = [fmean(by_round[number]) for number in x]
    layer = 20 - (0 if style.alone else style.width)  # thinner ribbons on wider ones, on top of all the dashed lines
    line = panel.plot(x, y, color=style.colour, linestyle=style.dashes, linewidth=style.width, zorder=layer)[0]
    if style.inner:  # a seam between ribbons whose greys may be alike
        line.set_path_effects([Stroke(linewidth=style.width + 1.0, foreground=ink.paper), Normal()])
    step = max(style.turns, math.ceil(len(x) / _MOST_MARKERS))
    here = slice(style.turn % min(step, len(x)), None, step)
    panel.plot(x[here], y[here], color=style.colour, linestyle="", marker=style.marker, zorder=21)
    if all(len(values) < 2 for values in by_round.values()):
        return None
    band = _band_of(x, [by_round[number] for number in x])
    room = panel.dataLim.frozen()
    panel.fill_between(x, band.low, band.high, color=style.colour, alpha=0.14, linewidth=0, zorder=2)
    panel.dataLim.set(room)
    return band


@dataclass(frozen=True)
class _Band:
    """A 95 % interval by round, where an axis can show it; NaN: there is none."""

    x: Sequence[int]
    low: Sequence[float]
    high: Sequence[float]


def _band_of(x: Sequence[int], values: Sequence[Sequence[float]]) -> _Band:
    found = [estimate(some) if all(map(math.isfinite, some)) else None for some in values]
    halves = [math.nan if one is None or one.half is None else one.half for one in found]
    means = [math.nan if one is None else one.mean for one in found]
    return _Band(
        x,
        [max(mean - half, _LOWEST) if half == half else math.nan for mean, half in zip(means, halves, strict=True)],
        [mean + half for mean, half in zip(means, halves, strict=True)],
    )


def _make_room(panel: Any, bands: Iterable[_Band], axis: _Axis) -> None:
    """Widen the panel's limits by its bands, but on either side by no more than a part of what the lines take."""
    low, high = map(axis.place, panel.dataLim.intervaly)
    reach = _REACH * (high - low)
    ends = [axis.place(end) for band in bands for end in (*band.low, *band.high) if math.isfinite(end)]
    if ends and math.isfinite(reach):
        room = max(min(ends), low - reach), min(max(ends), high + reach)
        panel.update_datalim([(panel.dataLim.x0, axis.value(end)) for end in room])


@dataclass(frozen=True)
class _Axis:
    """What a panel shows, and where."""

    of: Callable[[RoundRow], float]
    place: Callable[[float], float]  # along the axis
    value: Callable[[float], float]  # at a place


def _place_of_accuracy(accuracy: float) -> float:
    return -math.log10(1 - min(max(accuracy, 0.0), _PERFECT))


def _place_of_loss(loss: float) -> float:
    return math.log10(max(loss, _LOWEST))


def _loss(row: RoundRow) -> float:
    """The loss where a logarithmic axis can show it."""
    return row.test_loss if math.isfinite(row.test_loss) and row.test_loss > 0 else math.nan


_ACCURACY = _Axis(lambda row: min(row.test_accuracy, _PERFECT), _place_of_accuracy, lambda at: 1 - 10**-at)
_LOSS = _Axis(_loss, _place_of_loss, lambda at: 10**at)


def _handle(style: _Style) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour, linestyle=style.dashes, linewidth=style.width, marker=style.marker)


def _legend(strategies: Sequence[str], same: Sequence[Coincidence]) -> list[str]:
    names = short_names(strategies)
    texts = {}
    for strategy in strategies:
        twins = [
            names[one.strategies[0]] + (f" in {enumerate_words(one.scenarios)}" if one.scenarios else "")
            for one in same
            if strategy in one.strategies[1:]
        ]
        texts[strategy] = names[strategy] + (f" (same as {enumerate_words(twins)})" if twins else "")
    return list(texts.values())


def _legend_columns(names: Sequence[str]) -> int:
    """As many as the widths of the names allow; matplotlib fills column by column."""
    for columns in range(min(_LEGEND_COLUMNS, len(names)), 1, -1):
        rows = math.ceil(len(names) / columns)
        longest = [max(map(len, names[start : start + rows])) for start in range(0, len(names), rows)]
        if sum(0.75 + 0.083 * letters for letters in longest) < 9.9:  # inches: handle and gap, and a letter's width
            return columns
    return 1


def scale_accuracy(panel: Any, along: Literal["x", "y"] = "y") -> None:
    """Equal steps for equal ratios of the error, as many ticks as have room.

    Args:
        panel: matplotlib axes that hold their data already, accuracies as shares of 0..1.
        along: the axis that shows them.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axis, low, high = (
        (panel.xaxis, *panel.dataLim.intervalx) if along == "x" else (panel.yaxis, *panel.dataLim.intervaly)
    )

    def place(accuracy: float) -> float:
        return -math.log10(1 - min(accuracy, 0.9999))

    (panel.set_xscale if along == "x" else panel.set_yscale)(
        "function", functions=(lambda y: -np.log10(np.maximum(1 - y, 1e-4)), lambda t: 1 - np.power(10.0, -t))
    )
    room = max(place(high) - place(low), 0.02)
    bottom, top = (1 - 10**-(at) for at in (max(0.0, place(low) - 0.05 * room), place(high) + 0.08 * room))
    (panel.set_xlim if along == "x" else panel.set_ylim)(bottom, top)
    ticks: list[float] = []
    for tick in (tick for rank in ACCURACY_TICKS for tick in rank if bottom <= tick <= top):
        if all(abs(place(tick) - place(other)) > 0.075 * room for other in ticks):
            ticks.append(tick)
    axis.set_major_locator(FixedLocator(sorted(ticks)) if len(ticks) > _FEW_TICKS else MaxNLocator(6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda y, _: f"{'≥' if y == _PERFECT <= high else ''}{100 * y:g} %"))


def scale_loss(panel: Any) -> None:
    """A logarithmic loss axis with plain numbers; it shows nothing at or below zero."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = panel.dataLim.intervaly
    panel.set_yscale("log")
    # Of a run that diverges only every so many powers of ten have room.
    panel.yaxis.set_major_locator(LogLocator() if 0 < _WIDE * low < high else LogLocator(subs=(1, 2, 3, 5)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def look(ink: Ink) -> dict[str, Any]:
    """Matplotlib's settings for all pictures, for `matplotlib.rc_context`."""
    return {
        "figure.facecolor": ink.paper,
        "axes.facecolor": ink.paper,
        "axes.edgecolor": ink.faint,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "axes.titlecolor": ink.text,
        "axes.labelcolor": ink.faint,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "font.family": "sans-serif",
        "font.size": 10,
        "grid.color": ink.grid,
        "grid.linewidth": 0.8,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "lines.dash_capstyle": "butt",
        "lines.markeredgecolor": ink.paper,
        "lines.markeredgewidth": 0.7,
        "lines.markersize": 6.5,
        "lines.solid_capstyle": "butt",
        "text.color": ink.text,
        "xtick.color": ink.faint,
        "ytick.color": ink.faint,
        "ytick.left": False,
    }
