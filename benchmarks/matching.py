"""Matching of hidden units against its floor: the matrix products and linear assignments that it made, alone."""

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Table
from strategies import descent
from strategies.matching import Matching, match
from task.structure import Group, Permutation, Place, Structure
from task.update import Arrays

MODELS = 5
DENSE_SMALL, DENSE_LARGE = (784, 1500, 10), (784, 2048, 2048, 2048, 10)
CHANNELS = (1, 128, 256, 512)  # 3 x 3 convolutions with pooling between them: 28 x 28 -> 3 x 3
DENSE_BEHIND = (3 * 3 * 512, 1792, 10)
TARGETS = {"small": 5, "large": 60}  # seconds


def measure(quick: bool = False) -> list[Table]:
    """The table of all nets; `quick`: the smallest alone."""
    cases = {
        f"dense {'-'.join(map(str, DENSE_SMALL))}": (dense(DENSE_SMALL), "small"),
        f"dense {'-'.join(map(str, DENSE_LARGE))}": (dense(DENSE_LARGE), "large"),
        f"conv {'-'.join(map(str, CHANNELS[1:]))}, dense {'-'.join(map(str, DENSE_BEHIND[1:]))}": (
            convolutional(),
            "large",
        ),
    }
    rows = [
        _row(name, structure, shapes, TARGETS[size], turns=1 if quick or size == "large" else 3)
        for name, ((structure, shapes), size) in list(cases.items())[: 1 if quick else None]
    ]
    head = ("net", "parameters", "match (s)", "floor (s)", "/ floor", "steps", "distance", "target (s)")
    notes = (
        f"{MODELS} models with independent Glorot weights, `match` with its default restarts; the first line is the "
        "median of three runs.",
        "Floor: the matrix products and the assignments of all steps that the run made, timed where they are made and "
        "nothing else with them.",
        "Distance: the sum of squared distances to the mean after matching, as a share of that before. Weights of "
        "random numbers have little in common; trained models come closer.",
    )
    return [Table("Matching the hidden units of five models", head, tuple(rows), notes)]


def dense(sizes: tuple[int, ...]) -> tuple[Structure, list[tuple[int, ...]]]:
    """Dense layers with biases: their hidden units, and the shapes of the arrays."""
    shapes: list[tuple[int, ...]] = []
    for fan_in, fan_out in pairwise(sizes):
        shapes += [(fan_in, fan_out), (fan_out,)]
    return Structure(_groups(sizes[1:-1], shapes), (True,) * len(shapes)), shapes


def convolutional() -> tuple[Structure, list[tuple[int, ...]]]:
    """3 x 3 convolutions and two dense layers behind a Flatten."""
    shapes: list[tuple[int, ...]] = []
    for fan_in, fan_out in pairwise(CHANNELS):
        shapes += [(3, 3, fan_in, fan_out), (fan_out,)]
    for fan_in, fan_out in pairwise(DENSE_BEHIND):
        shapes += [(fan_in, fan_out), (fan_out,)]
    return Structure(_groups((*CHANNELS[1:], *DENSE_BEHIND[1:-1]), shapes), (True,) * len(shapes)), shapes


def _groups(sizes: tuple[int, ...], shapes: list[tuple[int, ...]]) -> tuple[Group, ...]:
    groups = []
    for layer, size in enumerate(sizes):
        kernel, bias, following = 2 * layer, 2 * layer + 1, 2 * layer + 2
        into = len(shapes[following]) - 2
        copies = shapes[following][into] // size  # more than one behind Flatten
        one, many = np.arange(size)[:, None], np.arange(size * copies).reshape(copies, size).T
        places = (Place(kernel, len(shapes[kernel]) - 1, one), Place(bias, 0, one), Place(following, into, many))
        groups.append(Group(f"layer {layer}", size, places))
    return tuple(groups)


def _row(name: str, structure: Structure, shapes: list[tuple[int, ...]], target: float, turns: int) -> tuple[str, ...]:
    models = [_model(shapes, seed) for seed in range(MODELS)]
    runs = [_turn(models, structure) for _ in range(turns)]
    took, floor = median(run[0] for run in runs), median(run[1] for run in runs)
    _, _, steps, found = runs[-1]
    return (
        name,
        f"{sum(array.size for array in models[0]):,}",
        f"{took:.2f}",
        f"{floor:.2f}",
        f"{took / floor:.2f}",
        str(steps),
        f"{100 * found.after / found.before:.1f} %",
        f"<= {target}",
    )


def _model(shapes: list[tuple[int, ...]], seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    model = []
    for shape in shapes:
        fans = np.prod(shape[:-1]) + np.prod(shape[:-2]) * shape[-1] if len(shape) > 1 else 1e4
        model.append((rng.standard_normal(shape) * np.sqrt(2 / fans)).astype(np.float32))
    return model


def _turn(models: list[Arrays], structure: Structure) -> tuple[float, float, int, Matching]:
    """Seconds of match and of its floor, the number of steps, and what was found.

    The seconds of the floor are taken in the same run, where products and assignments are made: so they see the same
    matrices, and the same other programs on the machine.
    """
    spent: list[float] = []
    steps = 0

    def counted(action: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            begun = perf_counter()
            result = action(*arguments)
            spent.append(perf_counter() - begun)
            return result

        return run

    solve, multiply = descent.largest, descent.add_product

    def solved(scores: NDArray[np.float32]) -> Permutation:
        nonlocal steps
        steps += 1
        return solve(scores)

    solve(np.eye(2, dtype=np.float32))  # imports
    descent.largest, descent.add_product = counted(solved), counted(multiply)  # type: ignore[assignment]
    try:
        begun = perf_counter()
        found = match(models, structure)
        took = perf_counter() - begun
    finally:
        descent.largest, descent.add_product = solve, multiply
    return took, sum(spent), steps, found


def main() -> None:
    """Print the table."""
    for table in measure():
        print(table.text())


if __name__ == "__main__":
    main()
