"""The files of a one-shot aggregation: rows, models, the picture and the page."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from server.files import RowFile, write_atomic
from server.oneshot.barrier import barrier
from server.oneshot.combination import Combination, Row
from server.oneshot.words import seeds_of
from task.evaluation import Evaluator
from task.update import Arrays

ROWS, PICTURE, PAGE, MODELS = "oneshot.csv", "oneshot.png", "report.html", "models"

_BEGAN = {"independent": ", each from a start of its own", "shared": ", all from one start", "files": ""}


def write_results(folder: Path, combinations: Sequence[Combination], *, command: Sequence[str], title: str) -> None:
    """Write oneshot.csv, models/seed<seed>-<method>.keras, oneshot.png and report.html.

    Each file is replaced as a whole, so that a crash leaves the old one or the new one.

    Args:
        folder: where; it is made if it is missing.
        combinations: one for each seed, at least one, all of one architecture and with one `init`.
        command: how the user called.
        title: what was trained on what.
    """
    write_rows(folder, combinations)
    for combination in combinations:
        write_models(folder, combination)
    write_report(folder, combinations, command=command, title=title)


def write_rows(folder: Path, combinations: Sequence[Combination]) -> None:
    """Write oneshot.csv; for the arguments of all of these see `write_results`."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(RowFile(folder / ROWS, Row)) as file:
        file.rewrite(row for combination in combinations for row in combination.rows)


def write_models(folder: Path, combination: Combination) -> None:
    """Write the models of one seed."""
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    for method, arrays in combination.models.items():
        _save(combination, arrays, folder / MODELS / f"seed{combination.material.seed}-{method}.keras")


def write_report(folder: Path, combinations: Sequence[Combination], *, command: Sequence[str], title: str) -> None:
    """Write oneshot.png and report.html."""
    from server.oneshot.page import render
    from server.oneshot.pictures import overview

    material = combinations[0].material
    subtitle = f"{len(material.locals)} finished models{_BEGAN[material.init]}; {seeds_of(combinations)}"
    write_atomic(folder / PICTURE, overview(combinations, title, subtitle))
    evaluate = Evaluator(material.model)
    barriers = [barrier(combination, evaluate) for combination in combinations]
    page = render(combinations, barriers, command=command, title=title, subtitle=subtitle)
    write_atomic(folder / PAGE, page.encode(errors="backslashreplace"))


def _save(combination: Combination, arrays: Arrays, path: Path) -> None:
    """Save a model as a `.keras` file, whole or not at all."""
    part = path.with_name(f".{path.stem}.part.keras")  # Keras wants the ending
    combination.material.model.set_weights(arrays)
    combination.material.model.save(part)
    part.replace(path)
