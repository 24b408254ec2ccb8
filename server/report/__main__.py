"""`python -m server.report DIR [DIR ...]`: write the page of a run again, or one page of several runs."""

import sys
from pathlib import Path

from task.command import run_command
from task.errors import UserError
from task.options import Parser

PROGRAM = "python -m server.report"


def main(arguments: list[str] | None = None) -> int:
    """Write the page; the exit status.

    0: done; 2: a mistake of the user's; 130: Ctrl-C.
    """
    return run_command(PROGRAM, lambda: _run(arguments))


def _run(arguments: list[str] | None) -> int:
    parser = Parser(
        prog=PROGRAM,
        description="Write report.html and curves.png of a run again. Several runs become one page: their seeds are"
        " pooled, their scenarios become panels, their strategies lines. Nothing else in the folders changes.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE|DIR",
        help="where the page goes: a file that ends in .html, or a folder; default, for one run: its own folder",
    )
    given = parser.parse_args(arguments)
    sys.stdout.write(f"{_write(given.folders, given.out)}\n")
    return 0


def _write(folders: list[Path], out: Path | None) -> Path:
    from server.report.pool import pool
    from server.report.read import read_run
    from server.report.write import write_pages
    from server.summary import Outcome

    page, curves = _files(folders, out)
    run = pool([read_run(folder) for folder in folders])
    outcome = Outcome.read(run)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_pages(outcome, run.path.resolve().name, page, curves)
    except OSError as error:
        raise UserError(f"cannot write {page} ({error.strerror}): choose another place with --out") from error
    return page


def _files(folders: list[Path], out: Path | None) -> tuple[Path, Path | None]:
    """The page, and the picture beside it; a page that is given by its name stays alone.

    Raises:
        UserError: nobody knows where they go, or they would replace those of another run.
    """
    from server.results import holds_run

    if out is None:
        if len(folders) > 1:
            raise UserError("several runs need a place for their page: --out FILE.html or --out DIR")
        out = folders[0]
    elif out.suffix.lower() in (".html", ".htm") and not out.is_dir():
        return out, None
    elif holds_run(out) and [folder.resolve() for folder in folders] != [out.resolve()]:
        raise UserError(f"{out} holds a run with a page of its own: choose another folder with --out")
    return out / "report.html", out / "curves.png"


if __name__ == "__main__":
    sys.exit(main())
