"""Kills: runs that are killed at random moments, and resumed, against the same run undisturbed.

SIGKILL goes to the processes of a simulation and of a deployment in turn, at moments drawn over the whole life of the
run, and to some of the resumed runs again. What counts is that the final weights have the same hashes and that the
tables hold the same rows, each once.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.command import CommandFailedError
from benchmarks.kill_outcomes import Outcome, Runs, compare, count
from benchmarks.kills_clients import DeployedRuns
from benchmarks.kills_simulation import SimulatedRuns
from benchmarks.table import Table

SEED = 20261127
KINDS: dict[str, tuple[Callable[[], Runs], int, int]] = {  # how many kills, and how many of them with --quick
    "simulation": (SimulatedRuns, 50, 5),
    "clients": (DeployedRuns, 20, 4),
}


def measure(*, quick: bool, times: int | None = None, seed: int = SEED, of: str | None = None) -> list[Table]:
    """Kill runs, print what became of each, and count.

    Args:
        quick: only a few.
        times: how many kills of each kind; None: those of `KINDS`.
        seed: of the moments and of what is drawn with them.
        of: the kind, one of `KINDS`; None: all.

    Raises:
        CommandFailedError: a run hangs, cannot be resumed, or does not come to the undisturbed run's bits and rows.
    """
    tables = []
    for kind, (make, whole, few) in KINDS.items():
        if of in (None, kind):
            with make() as runs:
                tables.append(_kill(kind, runs, times or (few if quick else whole), seed))
    return tables


def _kill(kind: str, runs: Runs, times: int, seed: int) -> Table:
    random, outcomes = np.random.default_rng(seed), list[Outcome]()
    print(f"{kind}: seed {seed}, {times} kills", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        life = runs.undisturbed(whole)
        for number in range(2 * times):  # some runs end before their moment, and are replaced
            folder, moment = Path(scratch, str(number)), float(random.uniform(0, life))
            target = runs.targets[len(outcomes) % len(runs.targets)]
            done = runs.disturbed(folder, target, moment, life, random)
            if done:
                outcomes.append(compare(folder, whole, target, *done))
            print(f"{len(outcomes):3} {moment:5.1f} s {outcomes[-1] if done else 'ended before the kill'}", flush=True)
            if len(outcomes) == times:
                break
    equal = sum(one.hashes and one.rows for one in outcomes)
    print(f"{kind}: {equal} of {times} came to the hashes and rows of the undisturbed run", flush=True)
    if equal < times:
        raise CommandFailedError("not every run came to the bits and the rows of the undisturbed one; see above")
    notes = (*runs.notes, f"Undisturbed it takes {life:.1f} s.")
    return count(f"{kind}: {times} kills (seed {seed}), each resumed until it was through", outcomes, notes)
