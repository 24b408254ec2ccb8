"""`python -m server.oneshot`: combine finished `.keras` files once, and say what each way of doing so gives."""

import gc
import sys
import time

gc.disable()  # importing makes no garbage; switched on before anything is computed

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from task.command import run_command  # noqa: E402
from task.leave import leave  # noqa: E402
from task.options import Parser, above_zero, positive  # noqa: E402

PROGRAM = "python -m server.oneshot"


def main(arguments: list[str] | None = None) -> int:
    """Combine finished models; the exit status.

    0: done; 2: a mistake of the user's; 130: Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return run_command(PROGRAM, lambda: _run(vars(_parser().parse_args(words)), words))


def _run(given: dict[str, Any], words: list[str]) -> int:
    from server.oneshot.from_files import Order, combine_files

    steps = given.get("steps")
    norms = tuple(map(float, steps)) if steps else given.get("norms")
    order = Order(
        files=tuple(given["files"]),
        test=given["test"],
        public=given.get("public"),
        base=given.get("base"),
        examples=tuple(given["examples"]) if "examples" in given else None,
        norms=tuple(norms) if norms else None,
        seed=given.get("seed", 0),
    )
    return combine_files(
        order,
        given.get("out") or Path(time.strftime("runs/oneshot-%Y%m%d-%H%M%S")),
        quiet=given.get("quiet", False),
        verbose=given.get("verbose", False),
        command=["python", "-m", "server.oneshot", *words],
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Combine finished models of one architecture, once: averages, matching of their hidden units, "
        "ensemble. The whole pipeline on one machine: python sim.py one-shot.",
    )

    def add(name: str, text: str, to: argparse._ActionsContainer = parser, **kind: Any) -> None:
        to.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)

    parser.add_argument("files", nargs="+", type=Path, metavar="MODEL.keras", help="finished models, two or more")
    parser.add_argument(
        "--test", required=True, type=Path, metavar="FILE", help="the test set, an .npz file with x and y"
    )
    add("--public", "unlabelled examples, an .npz file with x; a y in it is not read", type=Path, metavar="FILE")
    add("--base", "the model that all of them started from, for fednova", type=Path, metavar="FILE")
    add("--examples", "on how many each was trained, for weighted", type=positive, nargs="+", metavar="N")
    work = parser.add_mutually_exclusive_group()
    add(
        "--steps",
        "local steps of each, if plain SGD made them; for fednova",
        work,
        type=positive,
        nargs="+",
        metavar="N",
    )
    add("--norms", "instead, FedNova's a_i of each", work, type=above_zero, nargs="+", metavar="A")
    add("--seed", "for restarts and mini-batches; default: 0", type=_seed, metavar="K")
    add("--out", "where the results go; default: runs/oneshot-<time>", type=Path, metavar="DIR")
    add("--quiet", "show failures only", action="store_true")
    add("--verbose", "show what TensorFlow says, too", action="store_true")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, not {text!r}")
    return int(text)


if __name__ == "__main__":
    leave(main())
