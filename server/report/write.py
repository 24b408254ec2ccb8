"""The report of a run as files: curves.png and report.html."""

from pathlib import Path

from server.files import write_atomic
from server.plot import draw_curves
from server.report.page import render
from server.results import RunFolder
from server.summary import Outcome


def write_report(folder: RunFolder, outcome: Outcome) -> Path:
    """Write curves.png and report.html from what the folder holds; before the first row there are no curves.

    Returns:
        The path of the page.
    """
    write_pages(outcome, folder.path.name, folder.report_path, folder.curves_path)
    return folder.report_path


def write_pages(outcome: Outcome, name: str, page: Path, curves: Path | None) -> None:
    """Write the page, and the picture beside it.

    Args:
        outcome: what they tell.
        name: what the run is called.
        page: the HTML file.
        curves: the PNG file; None: none is wanted.
    """
    title, subtitle = titles(outcome)
    picture = draw_curves(outcome.rounds, outcome.same, title, subtitle) if outcome.rounds else None
    if picture and curves:
        write_atomic(curves, picture)
    write_atomic(page, render(outcome, name, title, subtitle, picture).encode())


def titles(outcome: Outcome) -> tuple[str, str]:
    """What was trained on what, and with which seeds."""
    config = outcome.run.get("config", {})
    words = [str(config.get("dataset", "federated run"))]
    words += [f"{config[count]} {count}" for count in ("clients", "rounds") if count in config]
    if not outcome.rounds:
        return ", ".join(words), ""
    seeds: dict[str, set[int]] = {}
    for row in outcome.rounds:
        seeds.setdefault(row.scenario, set()).add(row.seed)
    counts = sorted({len(some) for some in seeds.values()})
    if counts == [1]:
        spread = f"seed {' '.join(map(str, sorted(set.union(*seeds.values()))))}"
    else:
        spread = (
            f"mean (line) and 95 % interval (band) of {' to '.join(map(str, counts[:: len(counts) - 1 or 1]))} seeds"
        )
    return ", ".join(words), ", ".join([*seeds, spread] if len(seeds) == 1 else [spread])
