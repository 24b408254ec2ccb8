"""`python -m task.data split`: shards for real clients, the same that a simulation with that seed uses."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from task.command import run_command
from task.scenario import resolved, scenario_of
from task.shards import DEFAULT_CLIENTS, Shards, prepare

PROGRAM = "python -m task.data"


class _Parser(argparse.ArgumentParser):
    """argparse without the usage lines before an error: one clear line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        The exit status: 0, or 2 after one line on stderr.
    """
    return run_command(f"{PROGRAM} split", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = _Parser(prog=PROGRAM, description="Data sets and private shards.")
    split = parser.add_subparsers(required=True, metavar="command").add_parser(
        "split", help="cut a data set into private shards and a test set, for real clients"
    )
    split.add_argument("--dataset", default="mnist-5k", help="name, .npz file or folder of IDX files (%(default)s)")
    split.add_argument("--clients", type=int, default=DEFAULT_CLIENTS, help="number of shards (%(default)s)")
    split.add_argument("--seed", type=int, default=0, help="seed of the simulation to match (%(default)s)")
    split.add_argument(
        "--scenario",
        default="iid",
        metavar="NAME",
        help="how data differ: label-skew:alpha=0.1, a .toml file (%(default)s)",
    )
    split.add_argument("--out", type=Path, required=True, help="folder for shard-0.npz ... test.npz, shards.json")
    options = parser.parse_args(arguments)
    scenario = resolved(options.scenario)
    shards = prepare(options.dataset, options.clients, options.seed, scenario, out=options.out)
    sys.stdout.write(table(shards) + _not_in_data(scenario))
    return 0


def table(shards: Shards) -> str:
    """Label counts per shard and what else is true of it, the chi-square p-value and the files, as lines of text."""
    rows = [["shard", "examples", *(f"{label}" for label in range(shards.num_classes))]]
    rows += [[f"{client}", f"{sum(row)}", *map(str, row)] for client, row in enumerate(shards.counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for client in range(shards.clients):
        if noted := _notes(shards, client):
            lines[client + 1] += "  " + ", ".join(noted)
    last = f"shard-{shards.clients - 1}.npz"
    scenario = [] if shards.scenario == "iid" else [f"scenario: {shards.scenario}"]
    return "\n".join(
        [
            f"{shards.dataset}: {shards.clients} shards, seed {shards.seed}, {shards.test_examples} test examples",
            *lines,
            *scenario,
            f"chi-square p-value of the label counts: {shards.p_value:.4g} (1: every shard has the same shares)",
            f"in {shards.folder}: shard-0.npz ... {last}, test.npz, shards.json\n",
        ]
    )


def _notes(shards: Shards, client: int) -> list[str]:
    notes = [shards.features[client]] if shards.features else []
    notes += ["outlier"] if client in shards.outliers else []
    return notes + (["labels flipped"] if client in shards.flipped else [])


def _not_in_data(scenario: str) -> str:
    """A line on the parts that files cannot hold, if there are some."""
    others = ", ".join(part.name for part in scenario_of(scenario).acting)
    return f"not in the files, but in the rounds of a simulation: {others}\n" if others else ""
