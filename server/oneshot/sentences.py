"""The page's sentences that depend on what was found; each says only what this run shows."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from server.names import percent
from server.oneshot.barrier import Barrier
from server.oneshot.combination import (
    ANCHORED,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    LOCAL,
    MATCHED,
    MEAN_LOCAL,
    Combination,
)
from server.oneshot.estimates import MethodSummary, by_method, difference, over_locals, summarise
from server.oneshot.geometry import Geometry
from server.oneshot.verdict import fails
from server.oneshot.words import length, points, share

_HARDLY = 0.05  # of the distance between the models
_FIRST = f"{LOCAL}0"


def began(combinations: Sequence[Combination]) -> str:
    """How the models began."""
    material = combinations[0].material
    if material.init == "independent":
        return "Each began from random weights of its own."
    if material.init == "shared":
        return "All began from the same random weights."
    if material.base is not None:
        return "They are files, and all are said to have begun from the model given as their base."
    return "They are files, and how they began is not known."


def average(combinations: Sequence[Combination], before: Sequence[Geometry]) -> str:
    """What became of the plain mean, and why."""
    material, plain = combinations[0].material, summarise(combinations).get("fedavg")
    if plain is None:
        return "There is no plain average here."
    worst, mean = over_locals(combinations, min).mean, over_locals(combinations, fmean).mean
    got = (
        f"it gives {share(plain.accuracy)}, where the worst local model has {percent(worst)} and the mean one"
        f" {percent(mean)}."
    )
    broken = fails(combinations)
    if material.init == "independent":
        return "These models began apart, so each has its own order, and the plain average mixes units that have" + (
            f" nothing to do with each other: {got}" if broken else f" little to do with each other. Here {got}"
        )
    if material.init == "shared" or material.base is not None:
        start = "These models began as one, so unit 3 began as the same unit in all of them."
        if broken:
            return (
                f"{start} Yet training moved them so far apart that their plain average does not work any more: {got}"
            )
        return (
            f"{start} Training moved it, but did not make another unit of it: the drawers still hold the same things,"
            f" and the plain average makes sense: {got}"
        )
    angle = fmean(float(np.nanmean(_pairs(one.angles))) for one in before)
    return (
        f"Whether these models share an order is seen by their angles: near 0 degrees they are all but one model, near"
        f" 90 they have nothing in common, as models from different starts. Here the mean angle is {angle:.0f} degrees."
        f" As to the plain average, {got}"
    )


def barriers(found: Sequence[Barrier]) -> str:
    """How deep the valley of accuracy is, halfway, before and after matching."""
    middle = len(found[0].shares) // 2
    before, after = (fmean(getattr(one, name).accuracy[middle] for one in found) for name in ("before", "after"))
    ends = fmean(one.before.accuracy[end] for one in found for end in (0, -1))
    return (
        f"Halfway between local-0 and local-1 stands their mean. Both ends have {percent(ends)} on average; halfway"
        f" there is {percent(before)} as the models are, and {percent(after)} with the units of local-1 in the matched"
        " order."
    )


def geometry(before: Sequence[Geometry], after: Sequence[Geometry]) -> str:
    """What the table of distances and angles says."""
    far, near = (fmean(float(_pairs(one.distances).mean()) for one in some) for some in (before, after))
    wide, narrow = (fmean(float(np.nanmean(_pairs(one.angles))) for one in some) for some in (before, after))
    return (
        f"Between two models there are {length(far)} before and {length(near)} after matching, and an angle of"
        f" {wide:.0f} and {narrow:.0f} degrees. Matching never raises the sum of the squared distances; but a"
        " smaller distance alone is no higher accuracy."
    )


def matching(combinations: Sequence[Combination]) -> str:
    """By how much the models came together, and what their mean is worth now."""
    found = [one.matching for one in combinations]
    before, after = fmean(one.before for one in found), fmean(one.after for one in found)
    groups = combinations[0].material.structure.groups
    text = (
        f"Here {len(groups)} groups with {sum(group.size for group in groups)} hidden units could be put into another"
        f" order; the sum of squared distances to the mean went from {before:.4g} to {after:.4g}."
        if groups
        else "This model has no hidden units whose order may change, so matching leaves everything as it is."
    )
    return text + _gain(combinations, MATCHED, "fedavg", "the plain average")


def calibrated(combinations: Sequence[Combination]) -> str:
    """What calibration gave."""
    public = combinations[0].material.public
    images = "" if public is None else f"{len(public)} images were used."
    return images + _gain(combinations, CALIBRATED, MATCHED, "matched alone")


def distilled(combinations: Sequence[Combination]) -> str:
    """What distillation gave."""
    return _gain(combinations, DISTILLED, CALIBRATED, "the calibrated model").strip()


def fednova(combinations: Sequence[Combination]) -> str:
    """Whether FedNova is defined here, and what it gave."""
    found = summarise(combinations).get("fednova")
    if found:
        return (
            f"These models have one, so the rule is defined: {share(found.accuracy)}. With equal local work it is the"
            " weighted mean; it differs from it where some models did more steps than others."
        )
    reason = next((one.undefined["fednova"] for one in combinations if "fednova" in one.undefined), "")
    if combinations[0].material.base is None:
        return (
            "These models have none that is known, so there is no such way and nothing to divide: the rule has no"
            " meaning here."
        )
    return f"It could not be computed here. {reason}"


def anchored(combinations: Sequence[Combination]) -> str:
    """What the seed project's apparent computation is, by how far it moved."""
    text = (
        "fednova-anchored is what the seed project seems to have computed. It takes the first local model for the"
        " common start, which it is not, and adds to it one mean local step towards the others."
    )
    found = summarise(combinations).get(ANCHORED)
    if found is None or found.distance is None:
        reason = next((one.undefined[ANCHORED] for one in combinations if ANCHORED in one.undefined), "")
        return f"{text} It is not in this table. {reason}"
    others = fmean(
        row.distance_to_first
        for combination in combinations
        for row in combination.rows
        if row.method.startswith(LOCAL) and row.method != _FIRST and row.distance_to_first is not None
    )
    first = fmean(by_method(combination)[_FIRST].test_accuracy for combination in combinations)
    moved = found.distance / others if others else 0.0
    text += (
        f" It moved {length(found.distance)} away from local-0, while the other models are {length(others)} away:"
        f" {100 * moved:.2g} % of that. It has {share(found.accuracy)}, local-0 has {percent(first)}."
    )
    if moved < _HARDLY:
        text += (
            " So this is the first local model, all but unmoved: its accuracy is that model's own, and nothing was"
            " aggregated."
        )
    return text


def ensemble(combinations: Sequence[Combination]) -> str:
    """The ensemble's accuracy and its lead over the mean local model, as the end of a clause."""
    found = summarise(combinations).get(ENSEMBLE)
    if found is None:
        return ""
    lead = found.to_mean_local
    return f": {share(found.accuracy)}" + (f", {points(lead)} points against the mean local model" if lead else "")


def local_span(combinations: Sequence[Combination]) -> str:
    """From the worst to the best local model of all seeds."""
    values = [row.test_accuracy for one in combinations for row in one.rows if row.method.startswith(LOCAL)]
    mean = summarise(combinations).get(MEAN_LOCAL)
    return f"{percent(min(values))} to {percent(max(values))}" + (
        f", {share(mean.accuracy)} on average" if mean else ""
    )


def seed_project(combinations: Sequence[Combination]) -> list[tuple[str, str, str, str]]:
    """The seed project's four rows: method, its figure, this run's, and what explains them."""
    found = summarise(combinations)
    examples = {update.num_examples for one in combinations for update in one.material.locals}
    equal = (
        "equal shares of the data have equal weights: it is the mean"
        if len(examples) == 1
        else "the weights change nothing about it"
    )
    anchored = f"{found[ANCHORED].method}: {share(found[ANCHORED].accuracy)}" if ANCHORED in found else "-"
    return [
        ("FedAvg mean", "51-55 %", _accuracy(found.get("fedavg")), "units in different orders, averaged as if in one"),
        (
            "FedMedian",
            "51-55 %",
            _accuracy(found.get("fedmedian")),
            "the middle of unrelated weights means as little as their mean",
        ),
        ("weighted", "51-55 %", _accuracy(found.get("weighted")), f"the same mixture; {equal}"),
        (
            "FedNova",
            "94 %",
            anchored,
            "without a common start FedNova has no definition; with the first model taken for it, the result is that"
            " model, all but unmoved, with its accuracy: an artefact, not an aggregation",
        ),
    ]


def _accuracy(one: MethodSummary | None) -> str:
    return share(one.accuracy) if one else "-"


def _gain(combinations: Sequence[Combination], method: str, other: str, words: str) -> str:
    """` matched gives 92.10 %, +40.00 points against the plain average.`, or why it does not."""
    found = summarise(combinations).get(method)
    if found is None:
        reason = next((one.undefined[method] for one in combinations if method in one.undefined), "")
        return f" {method} is not in this table. {reason}"
    gap = difference(combinations, method, other)
    return f" {method} gives {share(found.accuracy)}" + (f", {points(gap)} points against {words}." if gap else ".")


def _pairs(matrix: np.ndarray) -> np.ndarray:
    """What is above the diagonal: one value for each pair of models."""
    return matrix[np.triu_indices(len(matrix), 1)]
