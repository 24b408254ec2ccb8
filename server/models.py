"""What takes TensorFlow to make before a contest: test sets, initial models, where each contestant begins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from server.contest import Start
from server.evaluate import TestSets
from server.recorder import Recorder
from server.results import Entry, RunFolder
from server.starts import find_starts
from strategies.kernels import prepare
from task.config import RunConfig
from task.model import build_model, initial_arrays, trainable_mask
from task.structure import Structure
from task.units import structure_of


class Shape(NamedTuple):
    """What a model takes and gives.

    Attributes:
        input_shape: one example, such as (28, 28, 1).
        num_classes: labels are in 0..num_classes-1.
    """

    input_shape: tuple[int, ...]
    num_classes: int


@dataclass(frozen=True)
class Models:
    """The test sets, where every contestant begins, which arrays gradients move, and what gives the hidden units."""

    tests: TestSets
    starts: Mapping[Entry, Start]
    trainable: list[bool]
    structure: Callable[[], Structure]


def make_models(
    config: RunConfig, shape: Shape, tests: Mapping[Entry, Path], folder: RunFolder, recorder: Recorder, updates: int
) -> Models:
    """Build and trace; drop the rows of rounds that will be played again.

    Args:
        config: what is compared.
        shape: of the model.
        tests: of each contestant the file with its test set.
        folder: where rows may be already.
        recorder: told of milestones and evaluations; has the checkpoints.
        updates: how many clients a round has; kernels are compiled for so many.

    Raises:
        UserError: for a model or a test set that does not do, or checkpoints of another run.
    """
    initial = {}
    for seed in config.seeds:
        model = build_model(config.model, *shape, seed)  # the last one also evaluates; large models are not built twice
        initial[seed] = initial_arrays(model)
    starts = find_starts(tests, initial, folder, recorder)
    sets = TestSets(model, set(tests.values()), recorder.evaluated)
    for file, seed in {(file, entry.seed) for entry, file in tests.items()}:
        sets.remember(file, initial[seed])
    prepare(updates)
    recorder.reached("TensorFlow imported, models built and traced")
    return Models(sets, starts, trainable_mask(model), cache(partial(structure_of, model)))
