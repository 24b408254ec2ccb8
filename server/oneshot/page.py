"""report.html of a one-shot aggregation: one page that needs nothing else, not even a network, and says why."""

import base64
import shlex
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from server.oneshot import sentences
from server.oneshot.barrier import Barrier, every
from server.oneshot.combination import LOCAL, Combination
from server.oneshot.estimates import by_method, summarise
from server.oneshot.filters import Filters, filters
from server.oneshot.geometry import Geometry, geometry
from server.oneshot.pictures import draw_barriers, draw_filters, overview
from server.oneshot.table import method_table, seed_table, undefined
from server.oneshot.verdict import fails, verdict
from server.oneshot.words import LOCALS, length, seeds_of, what_it_is
from server.page_parts import page_environment
from server.summary import Table

_MOST_PAIRED = 6  # models whose pairs are listed one by one


def render(
    combinations: Sequence[Combination],
    barriers: Sequence[Barrier],
    *,
    command: Sequence[str],
    title: str,
    subtitle: str = "",
) -> str:
    """The page.

    Args:
        combinations: one for each seed, at least one, all of one architecture and with one `init`.
        barriers: of the same seeds.
        command: how the user called; it stands beside every figure.
        title: what was trained on what.
        subtitle: a fainter line.

    Returns:
        HTML. Texts of others, such as file names, are escaped.
    """
    from server.oneshot.page_template import PAGE

    first, many = combinations[0], len(combinations) > 1
    material, seeds = first.material, seeds_of(combinations)
    before, after = _geometries(combinations)
    found = filters(first)
    template = page_environment().from_string(PAGE)
    return template.render(
        title=title,
        subtitle=subtitle,
        command=shlex.join(command),
        seeds=seeds,
        many=many,
        count=len(material.locals),
        verdict=[_unbroken(line) for line in verdict(combinations)],
        overview=_inline(overview(combinations)),
        methods=method_table(combinations),
        words=_words(combinations),
        by_seed=seed_table(combinations) if many else None,
        began=sentences.began(combinations),
        local_span=_unbroken(sentences.local_span(combinations)),
        names=_names(first),
        fails=fails(combinations),
        average=_unbroken(sentences.average(combinations, before)),
        barriers=_inline(draw_barriers(barriers)),
        barrier_caption=_barrier_caption(first, seeds, many),
        barrier_text=_unbroken(sentences.barriers(barriers)),
        geometry=_geometry_table(before, after),
        geometry_text=_unbroken(sentences.geometry(before, after)),
        matching_text=_unbroken(sentences.matching(combinations)),
        filters=None if isinstance(found, str) else _inline(draw_filters(found)),
        filters_caption=found if isinstance(found, str) else _filters_caption(found, first),
        notes=material.structure.notes,
        calibrated_text=_unbroken(sentences.calibrated(combinations)),
        distilled_text=_unbroken(sentences.distilled(combinations)),
        fednova_text=_unbroken(sentences.fednova(combinations)),
        anchored_text=_unbroken(sentences.anchored(combinations)),
        ensemble_text=_unbroken(sentences.ensemble(combinations)),
        seed_project=_seed_project(combinations) if material.init == "independent" else None,
        seconds=_seconds(combinations),
    )


def _unbroken(text: str) -> str:
    """Numbers stay on one line with their interval and unit."""
    return text.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")


def _inline(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _words(combinations: Sequence[Combination]) -> dict[str, str]:
    """What every line of the table is, and why others are missing."""
    models = len(combinations[0].material.locals)
    methods = [LOCALS, *(method for method in summarise(combinations) if not method.startswith(LOCAL))]
    missing = {method: f"Not defined here. {why}" for method, why in undefined(combinations).items()}
    return {**{method: what_it_is(method, models) for method in methods}, **missing}


def _names(combination: Combination) -> Table | None:
    """What the local models are called for people, and what is known of them; None where that says nothing new."""
    material, rows = combination.material, by_method(combination)
    methods = [f"{LOCAL}{index}" for index in range(len(material.names))]
    if list(material.names) == methods:
        return None
    return Table(
        headers=("model", "examples", "accuracy %", "file"),
        rows=tuple(
            (method, str(update.num_examples), f"{100 * rows[method].test_accuracy:.2f}", name)
            for method, name, update in zip(methods, material.names, material.locals, strict=True)
        ),
        note="examples: what each counts for in the weighted mean.",
    )


def _geometries(combinations: Sequence[Combination]) -> tuple[list[Geometry], list[Geometry]]:
    """Of each seed, before and after matching."""
    return (
        [geometry([u.arrays for u in one.material.locals], one.material.structure.counted) for one in combinations],
        [geometry(one.matching.models, one.material.structure.counted) for one in combinations],
    )


def _geometry_table(before: Sequence[Geometry], after: Sequence[Geometry]) -> Table:
    """A line for each pair of models, or for the nearest, the mean and the furthest of many; then each to the mean."""
    distances, near = (np.mean([one.distances for one in some], 0) for some in (before, after))
    angles, narrow = (np.mean([one.angles for one in some], 0) for some in (before, after))
    to_mean, to_new_mean = (np.mean([one.to_mean for one in some], 0) for some in (before, after))
    upper = np.triu_indices(len(distances), 1)
    if len(distances) <= _MOST_PAIRED:
        rows = [
            (f"{LOCAL}{i}, {LOCAL}{j}", *_lengths(distances[i, j], near[i, j]), *_degrees(angles[i, j], narrow[i, j]))
            for i, j in zip(*upper, strict=True)
        ]
        rows += [
            (f"{LOCAL}{k} to the mean", *_lengths(one, other), "-", "-")
            for k, (one, other) in enumerate(zip(to_mean, to_new_mean, strict=True))
        ]
    else:
        rows = [
            (
                f"two models, {name}",
                *_lengths(pick(distances[upper]), pick(near[upper])),
                *_degrees(pick(angles[upper]), pick(narrow[upper])),
            )
            for name, pick in (("smallest", np.min), ("mean", np.mean), ("largest", np.max))
        ]
        rows.append(("a model to the mean, mean", *_lengths(to_mean.mean(), to_new_mean.mean()), "-", "-"))
    return Table(
        headers=("models", "distance before", "after", "angle before", "after"),
        rows=tuple(rows),
        note="Distance: L2, over all weights that count. Angle: in degrees, between two models seen from the origin.",
    )


def _lengths(before: float, after: float) -> tuple[str, str]:
    return length(float(before)), length(float(after))


def _degrees(before: float, after: float) -> tuple[str, str]:
    one, other = ("-" if np.isnan(angle) else f"{angle:.1f}" for angle in (before, after))
    return one, other


def _barrier_caption(combination: Combination, seeds: str, many: bool) -> str:
    step, normalised = every(combination), not all(combination.material.structure.counted)
    return "".join(
        (
            f"The straight line from local-0 to local-1; {seeds}",
            "; thin lines are seeds, thick ones their mean" if many else "",
            f"; on one test image in {step}" if step > 1 else "",
            "; BatchNorm's running statistics are mixed as the weights are" if normalised else "",
            ".",
        )
    )


def _filters_caption(found: Filters, combination: Combination) -> str:
    """What is seen, of which seed, and how the columns were chosen."""
    chosen = len(found.units)
    shown = f"{chosen} of {found.all_units} units, evenly picked by rank," if chosen < found.all_units else "all units,"
    models = len(combination.material.locals)
    rows = f"the first {len(found.after)} of {models} models; " if len(found.after) < models else ""
    return (
        f"Layer {found.layer}, {seeds_of([combination])}. An image is {found.what}; red is positive, blue negative."
        f" A column is one position in the layer: {shown} from the one that agrees best after matching to the one that"
        f" agrees least; {rows}in both pictures local-0 is the same. Where a column's images are alike, their mean"
        " looks like them; where not, it fades."
    )


def _seed_project(combinations: Sequence[Combination]) -> Table:
    return Table(
        headers=("method", "seed project", "this run", "what explains the numbers"),
        rows=tuple(sentences.seed_project(combinations)),
        note="",
    )


def _seconds(combinations: Sequence[Combination]) -> Table:
    """Mean wall seconds of each step."""
    steps = dict.fromkeys(step for one in combinations for step in one.seconds)
    return Table(
        headers=("step", "seconds"),
        rows=tuple((s, f"{fmean(one.seconds.get(s, 0.0) for one in combinations):.2f}") for s in steps),
        note="Wall seconds for one seed, mean over the seeds." if len(combinations) > 1 else "Wall seconds.",
    )
