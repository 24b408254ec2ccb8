"""What is shown of a one-shot aggregation: right numbers, honest sentences, a page that stands alone."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from scipy import stats
from test_report import Tags

from server.oneshot import pictures
from server.oneshot.barrier import Barrier, Curve, barrier, between, every
from server.oneshot.combination import (
    ANCHORED,
    AVERAGES,
    BEST_LOCAL,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    MATCHED,
    MEAN_LOCAL,
    METHODS,
    Combination,
    Init,
    Material,
    Row,
)
from server.oneshot.estimates import difference, summarise
from server.oneshot.filters import Filters, filters
from server.oneshot.geometry import geometry
from server.oneshot.page import render
from server.oneshot.results import write_results
from server.oneshot.table import method_table, seed_table, summary_table
from server.oneshot.verdict import fails, verdict
from server.statistics.estimate import estimate
from strategies.matching import Matching
from task.backend import load
from task.evaluation import Evaluator, resident
from task.structure import Group, Place, Structure
from task.update import Arrays, Update

COMMAND = ["python", "sim.py", "one-shot", "--out", "my runs"]
NO_START = "These models have no common start."


def cnn() -> Any:
    keras, _ = load()
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )


def dense(shape: tuple[int, ...] = (6, 6)) -> Any:
    keras, _ = load()
    layers = keras.layers
    flat = [layers.Flatten()] if len(shape) > 1 else []
    return keras.Sequential([keras.Input(shape), *flat, layers.Dense(5, activation="relu"), layers.Dense(3)])


def units(size: int, copies: int = 1) -> np.ndarray:
    return np.arange(copies)[None, :] * size + np.arange(size)[:, None]


CNN_UNITS = Structure(
    (Group("conv", 4, (Place(0, 3, units(4)), Place(1, 0, units(4)), Place(2, 0, units(4, 16)))),), (True,) * 4
)
DENSE_UNITS = Structure(
    (Group("dense", 5, (Place(0, 1, units(5)), Place(1, 0, units(5)), Place(2, 0, units(5)))),), (True,) * 4
)


def material(
    model: Any, structure: Structure, seed: int = 0, init: Init = "independent", models: int = 3, examples: int = 60
) -> tuple[Material, Matching]:
    """Models that are one model in other orders, a little disturbed; and their right matching."""
    random = np.random.default_rng(seed)
    first = [random.normal(size=a.shape).astype(np.float32) for a in model.get_weights()]
    given, matched, orders = [], [], []
    for k in range(models):
        near = [a + np.float32(0.1 * (k > 0)) * random.normal(size=a.shape).astype(np.float32) for a in first]
        order = [random.permutation(g.size) if k else np.arange(g.size) for g in structure.groups]
        given.append(structure.permuted(near, order))
        matched.append(near)
        orders.append([np.argsort(p) for p in order])
    x = random.normal(size=(examples, *model.input_shape[1:])).astype(np.float32)
    model.set_weights(first)
    y = np.argmax(model(x), axis=1).astype(np.int32)
    made = Material(
        model=model,
        structure=structure,
        locals=tuple(Update(arrays, 100, 50.0, k) for k, arrays in enumerate(given)),
        names=tuple(f"local-{k}" for k in range(models)),
        base=first if init == "shared" else None,
        test=resident(x, y),
        public=x[:20],
        seed=seed,
        init=init,
    )
    return made, Matching(matched, orders, spread(given), spread(matched))


def spread(models: Sequence[Arrays]) -> float:
    return float(sum(np.square(np.stack(one) - np.mean(one, 0)).sum() for one in zip(*models, strict=True)))


GIVEN = {
    MEAN_LOCAL: 0.90,
    BEST_LOCAL: 0.92,
    ENSEMBLE: 0.95,
    **dict.fromkeys(AVERAGES, 0.5),
    ANCHORED: 0.91,
    MATCHED: 0.915,
    CALIBRATED: 0.93,
    DISTILLED: 0.94,
}


def combination(
    seed: int = 0,
    init: Init = "independent",
    *,
    model: Any = None,
    structure: Structure = CNN_UNITS,
    without: Sequence[str] = ("fednova",),
    **accuracies: float,
) -> Combination:
    """Rows are made up: GIVEN, a little different with each seed."""
    made, matching = material(model if model is not None else cnn(), structure, seed, init)
    models = {f"local-{k}": update.arrays for k, update in enumerate(made.locals)}
    models[MATCHED] = [np.mean(one, 0) for one in zip(*matching.models, strict=True)]
    wave = 0.004 * math.sin(seed + 1)
    rows = [Row(seed, init, f"local-{k}", 0.88 + 0.02 * k + wave, 0.4, 3.0 * (k > 0)) for k in range(3)]
    for method in METHODS:
        if method not in without:
            accuracy = accuracies.get(method.replace("-", "_"), GIVEN[method])
            single = None if method in (MEAN_LOCAL, ENSEMBLE) else 0.004 if method == ANCHORED else 2.0
            rows.append(Row(seed, init, method, accuracy + wave * (1 + METHODS.index(method) / 20), 0.3, single))
    undefined = dict.fromkeys(without, NO_START)
    return Combination(made, tuple(rows), models, matching, undefined, {"matched": 0.25})


@pytest.fixture(scope="module")
def two() -> list[Combination]:
    return [combination(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def five() -> list[Combination]:
    return [combination(seed) for seed in range(5)]


def page_of(combinations: Sequence[Combination], **options: Any) -> str:
    walks = [
        Barrier(
            one.material.seed, (0.0, 0.5, 1.0), Curve((0.9, 0.4, 0.9), (0.3, 2, 0.3)), Curve((0.9,) * 3, (0.3,) * 3)
        )
        for one in combinations
    ]
    return render(combinations, walks, **{"command": COMMAND, "title": "toy", **options})


def words(page: str) -> str:
    return " ".join(Tags(page).text.replace("\u00a0", " ").split())


def printed(combinations: Sequence[Combination], width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), record=True)
    console.print(summary_table(combinations))
    return console.export_text()


# Numbers


@pytest.mark.parametrize("values", [(0.9, 0.92), (0.91, 0.93, 0.9, 0.94, 0.92)])
def test_intervals_are_those_of_students_t(values: tuple[float, ...]) -> None:
    got = estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert got.mean - got.half == pytest.approx(low)
    assert got.mean + got.half == pytest.approx(high)


def test_one_value_has_no_interval_and_is_never_clear() -> None:
    assert (estimate([0.9]).half, estimate([0.9]).clear) == (None, False)
    assert estimate([0.9, 0.91]).clear
    assert not estimate([-0.1, 0.9]).clear


def test_differences_are_paired_within_the_seeds_that_have_both(five: list[Combination]) -> None:
    shortened = [*five[:4], replace(five[4], rows=tuple(r for r in five[4].rows if r.method != MATCHED))]
    got = difference(shortened, MATCHED, MEAN_LOCAL)
    gaps = [
        next(r.test_accuracy for r in one.rows if r.method == MATCHED)
        - next(r.test_accuracy for r in one.rows if r.method == MEAN_LOCAL)
        for one in five[:4]
    ]
    assert got is not None and got.seeds == 4
    assert got.half == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(gaps))
    assert difference(five, MATCHED, "fednova") is None


def test_methods_come_in_the_order_of_the_contract(five: list[Combination]) -> None:
    mixed = [replace(one, rows=tuple(reversed(one.rows))) for one in five]
    assert list(summarise(five)) == ["local-0", "local-1", "local-2", *(m for m in METHODS if m != "fednova")]
    assert list(summarise(mixed))[3:] == list(summarise(five))[3:]


def test_angles_and_distances_of_known_vectors() -> None:
    def model(*values: float) -> Arrays:
        return [
            np.array(values[:1], np.float32),
            np.array([1e6 * values[0]], np.float32),
            np.array([values[1:]], np.float32),
        ]

    got = geometry([model(1, 0, 0), model(0, 2, 0), model(1, 0, 1), model(-3, 0, 0)], (True, False, True))
    assert got.angles[0] == pytest.approx([0, 90, 45, 180])
    assert got.distances[0] == pytest.approx([0, math.sqrt(5), 1, 4])
    assert np.array_equal(got.distances, got.distances.T)
    centre = np.array([-0.25, 0.5, 0.25])
    points = np.array([[1, 0, 0], [0, 2, 0], [1, 0, 1], [-3, 0, 0]])
    assert got.to_mean == pytest.approx(np.linalg.norm(points - centre, axis=1))


def test_equal_models_are_at_no_distance_and_a_zero_model_has_no_angle() -> None:
    arrays = [np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)]
    same = geometry([arrays] * 3, (True,))
    assert not same.distances.any() and not same.to_mean.any()
    assert same.angles == pytest.approx(np.zeros((3, 3)), abs=1e-5)
    assert np.isnan(geometry([arrays, [0 * arrays[0]]], (True,)).angles[0, 1])


# The line between two models


def test_the_ends_of_both_lines_are_the_models_themselves(two: list[Combination]) -> None:
    one = two[0]
    evaluate = Evaluator(one.material.model)
    got = barrier(one, evaluate, points=5)
    own = [evaluate(update.arrays, *one.material.test) for update in one.material.locals[:2]]
    for curve in (got.before, got.after):
        assert (curve.accuracy[0], curve.accuracy[-1]) == tuple(accuracy for accuracy, _ in own)
        assert (curve.loss[0], curve.loss[-1]) == pytest.approx(tuple(loss for _, loss in own), rel=1e-5)
    assert got.shares == (0, 0.25, 0.5, 0.75, 1)
    middle = between(*(update.arrays for update in one.material.locals[:2]), 0.5)
    assert got.before.accuracy[2] == evaluate(middle, *one.material.test)[0]
    assert got.before.loss[2] > got.after.loss[2]  # matched copies differ by a little noise only


def test_points_on_the_line_keep_dtypes_and_leave_integers_alone() -> None:
    first, second = [np.array([1, 0.1], np.float16), np.array([3])], [np.array([2, 0.3], np.float16), np.array([9])]
    assert np.array_equal(between(first, second, 0)[0], first[0])
    assert np.array_equal(between(first, second, 1)[0], second[0])
    half = between(first, second, 0.5)
    assert half[0].dtype == np.float16 and half[0][0] == 1.5 and half[1] == [3]


def test_of_a_large_test_set_some_images_do(two: list[Combination]) -> None:
    x, y = (np.concatenate([np.asarray(part)] * 70) for part in two[0].material.test)
    large = replace(two[0], material=replace(two[0].material, test=resident(x, y)))
    assert (every(two[0]), every(large)) == (1, 3)
    assert "one test image in 3" in words(page_of([large]))
    assert 0 <= barrier(large, points=2).before.accuracy[0] <= 1


# Filters


def test_filters_of_matched_copies_agree_column_by_column(two: list[Combination]) -> None:
    found = filters(two[0])
    assert isinstance(found, Filters)
    assert found.after.shape == found.before.shape == (3, 4, 3, 3)
    assert found.agreement[1] > 0.95 > found.agreement[0]
    kernel = two[0].material.locals[0].arrays[0]
    assert np.allclose(found.after[0, 1], kernel[:, :, 0, found.units[1]])
    assert np.array_equal(found.before[0], found.after[0])
    flat = found.after.reshape(3, 4, -1)
    alike = [np.mean([np.corrcoef(flat[i, u], flat[j, u])[0, 1] for i in range(3) for j in range(i)]) for u in range(4)]
    assert alike[0] > alike[-1] - 0.02


def test_a_dense_layer_on_images_shows_its_weights_as_images() -> None:
    found = filters(combination(model=dense(), structure=DENSE_UNITS))
    assert isinstance(found, Filters)
    assert found.after.shape == (3, 5, 6, 6)
    assert "6 x 6 image" in found.what


@pytest.mark.parametrize(
    ("model", "structure", "why"),
    [
        (dense((12,)), DENSE_UNITS, "are no images"),
        (cnn(), replace(CNN_UNITS, groups=()), "keep their order"),
    ],
    ids=["no images", "frozen"],
)
def test_where_there_is_nothing_to_see_a_sentence_says_so(model: Any, structure: Structure, why: str) -> None:
    one = combination(model=model, structure=structure)
    sentence = filters(one)
    assert isinstance(sentence, str) and why in sentence
    page = page_of([one])
    assert why in words(page)
    assert page.count("<img") == 2


def test_many_units_are_shown_from_the_best_to_the_worst() -> None:
    keras, _ = load()
    model = keras.Sequential(
        [keras.Input((6, 6)), keras.layers.Flatten(), keras.layers.Dense(40), keras.layers.Dense(3)]
    )
    structure = Structure(
        (Group("d", 40, (Place(0, 1, units(40)), Place(1, 0, units(40)), Place(2, 0, units(40)))),), (True,) * 4
    )
    one = combination(model=model, structure=structure)
    found = filters(one)
    assert isinstance(found, Filters)
    assert len(set(found.units)) == 16 and found.all_units == 40
    assert "16 of 40 units" in words(page_of([one]))


# Words


def test_the_verdict_takes_the_best_single_model_and_weighs_it(five: list[Combination]) -> None:
    first, *rest = verdict(five)
    assert first.startswith("Take distilled: 94.")
    assert "against the mean local model" in first and "the ensemble" in first
    assert "±" in first
    assert any("Do not average" in line and "fedavg, fedmedian and weighted" in line for line in rest)
    assert not any("no intervals" in line for line in rest)


def test_one_seed_claims_no_intervals(two: list[Combination]) -> None:
    assert any("One seed" in line for line in verdict(two[:1]))
    assert "±" not in " ".join(verdict(two[:1])) + printed(two[:1])
    assert "No intervals" in method_table(two[:1]).note or "no intervals" in method_table(two[:1]).note


def test_a_lead_within_the_noise_is_called_so() -> None:
    close = [combination(seed, distilled=0.93 + 0.01 * (-1) ** seed) for seed in range(4)]
    assert any("may be noise" in line and CALIBRATED in line for line in verdict(close))


def test_where_nothing_beats_the_local_models_nothing_is_recommended() -> None:
    poor = dict.fromkeys((MATCHED, "matched_calibrated", DISTILLED), 0.6)
    assert verdict([combination(seed, **poor) for seed in (0, 1)])[0].startswith("Take none of the combined models")


def test_equal_methods_are_named_together() -> None:
    shared = [combination(s, "shared", without=(MATCHED, CALIBRATED, DISTILLED, "fednova")) for s in (0, 1)]
    same = [
        replace(one, rows=tuple(replace(r, test_accuracy=0.96) if r.method in AVERAGES else r for r in one.rows))
        for one in shared
    ]
    assert verdict(same)[0].startswith("Take fedavg, fedmedian and weighted: 96.00")
    assert not fails(same)
    assert "above the best local model" in " ".join(verdict(same))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("seeds", [1, 5])
def test_the_terminal_shows_every_method_within_its_width(five: list[Combination], width: int, seeds: int) -> None:
    text = printed(five[:seeds], width)
    assert max(map(len, text.splitlines())) <= width
    for method in METHODS:
        assert method in text
    assert "not defined here. " + NO_START in " ".join(text.split())
    assert ("local-0 to 2" in text) == (seeds > 1)
    assert ("local-1" in text) == (seeds == 1)
    assert not any("…" in line for line in text.splitlines())


def test_the_terminal_says_which_file_is_which() -> None:
    one = combination(0, "files")
    one = replace(one, material=replace(one.material, names=("[b]north.keras", "x/" * 60 + "y.keras", "c.keras")))
    text = printed([one])
    assert "local-0             [b]north.keras" in text
    assert "x/" * 60 + "y.keras" in "".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_the_folded_line_spans_all_seeds(five: list[Combination]) -> None:
    values = [100 * row.test_accuracy for one in five for row in one.rows if row.method.startswith("local-")]
    assert method_table(five).rows[0][1] == f"{min(values):.2f} to {max(values):.2f}"
    assert len(seed_table(five).rows[0]) == 6


# Files


def test_rows_models_picture_and_page_are_written(two: list[Combination], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    write_results(folder, two, command=COMMAND, title="toy $x$")
    with (folder / "oneshot.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["seed", "init", "method", "test_accuracy", "test_loss", "distance_to_first"]
    rows = [row for one in two for row in one.rows]
    assert [Row(int(s), i, m, float(a), float(loss), float(d) if d else None) for s, i, m, a, loss, d in lines] == rows
    names = {f"seed{seed}-{method}.keras" for seed in (0, 1) for method in two[0].models}
    assert {path.name for path in (folder / "models").iterdir()} == names
    keras, _ = load()
    saved = keras.saving.load_model(folder / "models" / "seed1-local-2.keras")
    for got, want in zip(saved.get_weights(), two[1].models["local-2"], strict=True):
        assert np.array_equal(got, want)
    assert imread(folder / "oneshot.png").shape[1] == 1600
    assert "Take distilled" in words((folder / "report.html").read_text(encoding="utf-8"))
    before = (folder / "oneshot.csv").read_bytes()
    write_results(folder, two, command=COMMAND, title="toy")  # again into the same folder: replaced, not appended
    assert (folder / "oneshot.csv").read_bytes() == before


# The page


@pytest.mark.parametrize("init", ["independent", "shared", "files"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_the_page_stands_alone_and_names_every_method(init: Init, seeds: int) -> None:
    page = page_of([combination(seed, init) for seed in range(seeds)])
    tags = Tags(page)
    for tag, attributes in tags.tags:
        assert tag not in ("script", "link", "iframe", "a")
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"https?:|@import|url\(", page)
    text = words(page)
    for method in (*METHODS, "local-0"):
        assert method in text
    assert NO_START in text
    assert "python sim.py one-shot --out 'my runs'" in text
    assert text.index("Take distilled") < text.index("What each line is")
    figures = sum(tag == "figure" for tag, _ in tags.tags)
    assert figures == 3
    assert text.count("Made by python sim.py") >= figures
    assert ("5 seeds (0, 1, 2, 3, 4)" in text) == (seeds == 5)
    assert ("seed project's table" in text) == (init == "independent")
    assert ("all but unmoved" in text) and "0.004 away from local-0" in text


def test_what_is_said_of_the_average_fits_how_the_models_began() -> None:
    works = dict.fromkeys(("fedavg", "fedmedian", "weighted", "fednova"), 0.95)
    apart = words(page_of([combination(seed) for seed in (0, 1)]))
    assert "the plain average fails" in apart and "began apart" in apart and "has no meaning here" in apart
    alike = words(page_of([combination(seed, "shared", without=(), **works) for seed in (0, 1)]))
    assert "the plain average fails" not in alike and "began as one" in alike and "so the rule is defined" in alike
    broken = words(page_of([combination(seed, "shared", without=()) for seed in (0, 1)]))
    assert "does not work any more" in broken
    unknown = words(page_of([combination(0, "files")]))
    assert "how they began is not known" in unknown and "mean angle" in unknown


def test_what_others_wrote_cannot_change_the_page() -> None:
    evil = "<b>.keras"
    one = combination(0, "files")
    one = replace(
        one,
        material=replace(one.material, names=(evil, "b.keras", "c.keras"), structure=replace(CNN_UNITS, notes=(evil,))),
        undefined={"fednova": evil, ANCHORED: evil},
    )
    page = page_of([one], command=["python", evil], title=evil, subtitle=evil)
    assert "<b>" not in page
    assert words(page).count(evil) >= 6


def test_methods_that_are_missing_are_explained_on_the_page() -> None:
    without = ("fednova", ANCHORED, CALIBRATED, DISTILLED)
    text = words(page_of([combination(seed, without=without) for seed in (0, 1)]))
    assert "all but unmoved" not in text.split("The seed project")[0]
    assert text.count(NO_START) >= 2 * len(without) - 1
    assert "Take matched" in text


def test_many_models_are_summed_up() -> None:
    made, matching = material(cnn(), CNN_UNITS, models=9)
    one = combination()
    rows = tuple(Row(0, "files", f"local-{k}", 0.9, 0.4, 1.0) for k in range(9)) + one.rows[3:]
    text = words(page_of([replace(one, material=replace(made, init="files"), matching=matching, rows=rows)]))
    assert "two models, smallest" in text and "local-3, local-4" not in text
    assert "the first 6 of 9 models" in text
    assert "local-0 to 8" in text


# Pictures


@pytest.mark.parametrize("level", [0.1, 0.9, 1.0])
def test_any_accuracy_can_be_drawn(level: float) -> None:
    one = combination()
    one = replace(one, rows=tuple(replace(row, test_accuracy=level) for row in one.rows))
    assert imread(BytesIO(pictures.overview([one], "title $", "a_b"))).shape[1] == 1600


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0])
def test_a_line_with_strange_losses_can_be_drawn(loss: float) -> None:
    curve = Curve((0.9, 0.9), (0.5, loss))
    assert imread(BytesIO(pictures.draw_barriers([Barrier(0, (0.0, 1.0), curve, curve)]))).shape[1] == 1600
