"""The pictures of a one-shot aggregation: every method at a glance, the way between two models, filters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from server.oneshot.barrier import Barrier
from server.oneshot.combination import (
    ANCHORED,
    AVERAGES,
    BEST_LOCAL,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    MATCHED,
    MEAN_LOCAL,
    Combination,
)
from server.oneshot.estimates import over_locals, summarise
from server.oneshot.filters import Filters, Images
from server.oneshot.words import hundredths
from server.plot import BLUE, GREEN, GREY, LIGHT, PINK, RED, look, scale_accuracy, scale_loss

_WIDTH, _DPI = 10.0, 160  # inches, dots an inch
_COLOUR = {
    **dict.fromkeys((MEAN_LOCAL, BEST_LOCAL), GREY),
    ENSEMBLE: GREEN,
    **dict.fromkeys(AVERAGES, RED),
    ANCHORED: PINK,
    **dict.fromkeys((MATCHED, CALIBRATED, DISTILLED), BLUE),
}
_MARKER = {GREY: "o", GREEN: "D", RED: "s", PINK: "v", BLUE: "^"}  # so that they differ without colours, too
_ROW = 0.34  # inches a line of the overview
_SPREAD = 0.11  # share of a row by which the dots of neighbouring seeds stand apart
_TILE, _SEAM = 28, 24  # pixels of a small image, at least; which part of it the seam beside it is
_BOUND = 99  # percentile of all weights that has the full colour


def overview(combinations: Sequence[Combination], title: str = "", subtitle: str = "") -> bytes:
    """Accuracy of every method: a dot for each seed, a bar at the mean, the local models as a band behind.

    The axis is logarithmic in the error, as in curves.png.

    Args:
        combinations: one for each seed, at least one.
        title: what was trained on what; empty: no room is left for the titles.
        subtitle: a second, fainter line.

    Returns:
        A PNG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = {name: one for name, one in summarise(combinations).items() if name in _COLOUR}
    many, head = len(combinations) > 1, 0.72 if title else 0.1
    legend, bottom = 0.34, 0.5
    height = head + legend + _ROW * (len(shown) + 0.3) + bottom
    with mpl.rc_context(look(LIGHT)):
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        panel = figure.add_axes((0.165, bottom / height, 0.675, 1 - (head + legend + bottom) / height))
        low, high = (over_locals(combinations, pick).mean for pick in (min, max))
        band = panel.axvspan(low, high, color=GREY, alpha=0.2, linewidth=0, zorder=1)
        lines = []
        if ENSEMBLE in shown:
            ceiling = shown[ENSEMBLE].accuracy.mean
            lines = [panel.axvline(ceiling, color=GREEN, linestyle=(0, (5, 2)), linewidth=1.4, zorder=2)]
        for row, (method, one) in enumerate(shown.items()):
            colour = _COLOUR[method]
            offsets = _SPREAD * (np.arange(len(one.accuracies)) - (len(one.accuracies) - 1) / 2)
            offsets *= min(1.0, 6 / len(one.accuracies))
            panel.plot(one.accuracies, row + offsets, color=colour, linestyle="", marker=_MARKER[colour], zorder=4)
            if many:
                panel.plot([one.accuracy.mean] * 2, [row - 0.36, row + 0.36], color=LIGHT.text, linewidth=2.2, zorder=5)
            panel.text(
                1.015,
                row,
                f"{hundredths(one.accuracy)} %",
                transform=panel.get_yaxis_transform(),
                va="center_baseline",
                size=10,
            )
        panel.set_yticks(range(len(shown)), list(shown), color=LIGHT.text)
        panel.set_ylim(len(shown) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
        scale_accuracy(panel, along="x")
        panel.set_xlabel("test accuracy, equal steps for equal ratios of the error")
        names = [f"local models, worst to best{' (means)' if many else ''}", *["ensemble"] * len(lines)]
        bars = [mpl.lines.Line2D([], [], color=LIGHT.text, linewidth=2.2)] if many else []
        figure.legend(
            [band, *lines, *bars],
            [*names, *[f"bar: mean of {len(combinations)} seeds"] * len(bars)],
            loc="upper left",
            bbox_to_anchor=(0.003, 1 - (head - 0.1) / height),
            ncols=3,
            handlelength=2.4,
        )
        _titles(figure, height, title, subtitle)
        return _png(figure)


def draw_barriers(barriers: Sequence[Barrier]) -> bytes:
    """Accuracy and loss on the way from local-0 to local-1: thin lines for seeds, thick ones for their mean.

    Args:
        barriers: one for each seed, at least one, all with the same shares.

    Returns:
        A PNG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    height, styles = 3.35, {"before": (RED, (0, (5, 1.6)), "as they are"), "after": (BLUE, "solid", "units matched")}
    with mpl.rc_context(look(LIGHT)):
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        panels = figure.subplots(1, 2)
        figure.subplots_adjust(0.074, 0.3 / height, 0.985, 1 - 0.68 / height, wspace=0.15)
        handles = []
        for name, (colour, dashes, _) in styles.items():
            for panel, value in zip(panels, ("accuracy", "loss"), strict=True):
                curves = [getattr(getattr(one, name), value) for one in barriers]
                x, style = barriers[0].shares, {"color": colour, "linestyle": dashes}
                if len(curves) > 1:
                    for curve in curves:
                        panel.plot(x, curve, **style, linewidth=0.8, alpha=0.45)
                line = panel.plot(x, [fmean(values) for values in zip(*curves, strict=True)], **style, linewidth=2.4)
            handles += line
        for panel, what in zip(panels, ("test accuracy", "test loss (cross-entropy, nats)"), strict=True):
            panel.set_title(what, loc="left")
            panel.set_xticks([0, 0.5, 1], ["local-0", "halfway: their mean", "local-1"])
            panel.margins(x=0.04)
            panel.get_xticklabels()[0].set_horizontalalignment("left")
            panel.get_xticklabels()[2].set_horizontalalignment("right")
        scale_accuracy(panels[0])
        scale_loss(panels[1])
        figure.legend(
            handles,
            [text for _, _, text in styles.values()],
            loc="upper left",
            bbox_to_anchor=(0.003, 1.0),
            ncols=2,
            handlelength=3.2,
        )
        return _png(figure)


def draw_filters(found: Filters) -> bytes:
    """The filters before and after matching: a row for each model and one for their mean, a column for each position.

    Returns:
        A PNG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    models, units = found.after.shape[:2]
    left, top, bottom, title, gap, seam = 0.72, 0.08, 0.1, 0.34, 0.3, 0.12  # inches
    cell: float = min((_WIDTH - left - 0.1) / units, 0.8)
    height = top + 2 * (title + cell * (models + 1) + seam) + gap + bottom
    bound = max(float(np.percentile(np.abs(found.after), _BOUND)), 1e-12)
    with mpl.rc_context({**look(LIGHT), "axes.grid": False}):
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)

        def draw(images: Images, y: float, names: Sequence[str]) -> float:
            """Rows of images from y inches below the top; where they end."""
            high = cell * len(images)
            place = (left / _WIDTH, 1 - (y + high) / height, cell * units / _WIDTH, high / height)
            panel = figure.add_axes(place)
            panel.imshow(
                _mosaic(images), cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest"
            )
            panel.set_axis_off()
            for row, name in enumerate(names):
                figure.text(0.012, 1 - (y + cell * (row + 0.5)) / height, name, va="center", size=9)
            return y + high

        y = top
        for images, words, agreement in (
            (found.before, "before: each model in its own order", found.agreement[0]),
            (found.after, "after matching", found.agreement[1]),
        ):
            text = f"{words} (mean cosine between two models in one column: {agreement:.2f})"
            figure.text(0.012, 1 - y / height, text, size=11, va="top")
            y = draw(images, y + title, [f"local-{row}" for row in range(models)])
            y = draw(images.mean(0, keepdims=True), y + seam, ["mean"]) + gap
        return _png(figure)


def _mosaic(images: Images) -> Images:
    """(rows, columns, height, width) -> one image with seams of NaN, which stay blank."""
    rows, columns, high, wide = images.shape
    zoom = -(-_TILE // max(high, wide))  # small filters are enlarged, or a seam of one pixel would be too wide
    large = images.repeat(zoom, 2).repeat(zoom, 3)
    seams = ((0, 0), (0, 0), (0, zoom * high // _SEAM + 1), (0, zoom * wide // _SEAM + 1))
    padded = np.pad(large, seams, constant_values=np.nan)
    return padded.transpose(0, 2, 1, 3).reshape(rows * padded.shape[2], columns * padded.shape[3])


def _titles(figure: Any, height: float, title: str, subtitle: str) -> None:
    figure.text(0.012, 1 - 0.14 / height, title, size=14, weight="bold", va="top", parse_math=False)
    figure.text(0.012, 1 - 0.43 / height, subtitle, color=LIGHT.faint, va="top", parse_math=False)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
