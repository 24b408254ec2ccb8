"""All numbers of one scenario as arrays by strategy, seed and round; and what is compared, with its margin."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.results import Entry, RoundRow

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Attributes:
        name: in comparison.csv.
        higher: whether a higher value is better.
        margin: the smallest difference of interest, in the metric's unit: whoever is nearer is as good.
    """

    name: str
    higher: bool
    margin: float

    @property
    def worst(self) -> float:
        """What stands for a value that is not a number, or that a run that gave up does not have."""
        return -np.inf if self.higher else np.inf


ACCURACY: Final = Metric("test_accuracy", higher=True, margin=0.01)  # 1 point
LOSS: Final = Metric("test_loss", higher=False, margin=0.05)  # nats
ROUNDS_TO_TARGET: Final = Metric("rounds_to_target", higher=False, margin=1.0)  # rounds


@dataclass(frozen=True)
class Panel:
    """One scenario. A run that gave up goes on in all later rounds with the values of the last model that it had.

    Attributes:
        scenario: its name.
        strategies: those with a row, in the order of the rows.
        seeds: ascending.
        last: the last round that is compared, see `panels_of`; 0: there is none.
        accuracy: test accuracy, 0..1, float64 [strategies, seeds, rounds from 0]; NaN: the run has not come so far.
        loss: test loss in nats, of the same shape; infinite where it was not finite.
        stopped: which runs gave up, bool [strategies, seeds].
    """

    scenario: str
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    last: int
    accuracy: Floats
    loss: Floats
    stopped: NDArray[np.bool_]

    def rounds_to(self, target: float) -> Floats:
        """The first round with this test accuracy, [strategies, seeds]; a run that never has it counts as last + 1.

        So the value is a lower bound where it is last + 1, and means of it are restricted means. NaN: the run has not
        come to the last round yet.
        """
        reached = self.accuracy[:, :, : self.last + 1] >= target
        first = np.where(reached.any(axis=2), reached.argmax(axis=2), self.last + 1).astype(np.float64)
        first[np.isnan(self.accuracy[:, :, self.last])] = np.nan
        return first


def panels_of(rounds: Sequence[RoundRow], stopped: Collection[Entry]) -> list[Panel]:
    """One panel a scenario, in order of appearance.

    Its last round is the last that all strategies have with at least half of the seeds that they ever have in common,
    so one run that is behind, when a run was interrupted or is still going on, does not hide what the others did.

    Args:
        rounds: all rows of a run.
        stopped: the contestants that gave up, see `server.statistics.diverged.gave_up`.
    """
    by_scenario: dict[str, list[RoundRow]] = {}
    for row in rounds:
        by_scenario.setdefault(row.scenario, []).append(row)
    return [_panel(scenario, rows, stopped) for scenario, rows in by_scenario.items()]


def _panel(scenario: str, rows: Sequence[RoundRow], stopped: Collection[Entry]) -> Panel:
    strategies = {name: i for i, name in enumerate(dict.fromkeys(row.strategy for row in rows))}
    seeds = {seed: k for k, seed in enumerate(sorted({row.seed for row in rows}))}
    shape = (len(strategies), len(seeds), max(row.round for row in rows) + 1)
    accuracy, loss = np.full(shape, np.nan), np.full(shape, np.nan)
    at = tuple(np.array([(strategies[row.strategy], seeds[row.seed], row.round) for row in rows]).T)
    accuracy[at] = np.nan_to_num([row.test_accuracy for row in rows], nan=0.0)
    losses = np.array([row.test_loss for row in rows], np.float64)
    loss[at] = np.where(np.isfinite(losses), losses, LOSS.worst)
    gone = np.zeros(shape[:2], bool)
    for name, i in strategies.items():
        for seed, k in seeds.items():
            gone[i, k] = Entry(scenario, name, seed) in stopped
            known = np.flatnonzero(~np.isnan(accuracy[i, k]))
            if gone[i, k] and known.size:
                for values in (accuracy, loss):
                    values[i, k, known[-1] + 1 :] = values[i, k, known[-1]]
    return Panel(scenario, tuple(strategies), tuple(seeds), _last(accuracy), accuracy, loss, gone)


def _last(accuracy: Floats) -> int:
    shared = (~np.isnan(accuracy)).all(axis=0).sum(axis=0)  # seeds that all strategies have, by round
    most = int(shared[1:].max(initial=0))
    return int(np.flatnonzero(2 * shared >= most)[-1]) if most else 0
