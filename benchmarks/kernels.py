"""Median and weighted mean against the least that they could do: read every input once and write one output."""

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.table import Table
from strategies.kernels import median, weighted_mean
from strategies.kernels.arrays import share_out

SMALL, LARGE = 1_200_000, 50_000_000
CASES = ((4, SMALL), (5, SMALL), (9, SMALL), (32, SMALL), (100, SMALL), (5, LARGE))
"""(arrays, coordinates of each); float32. The largest takes 1.2 GB, and np.median twice that for a moment."""
SECONDS = 4.0
"""So long each case and number of threads is repeated."""


def measure(quick: bool = False) -> list[Table]:
    """The table of `run`."""
    rows = [
        (
            f"{row['arrays']} x {row['coordinates']:,}",
            str(row["threads"]),
            f"{row['floor_ms']:.2f}",
            f"{row['median_ms']:.2f}",
            f"{row['median_ratio']:.2f}",
            f"{row['numpy_ms']:.0f}",
            f"{row['speed_up']:.0f}",
            f"{row['weighted_ms']:.2f}",
            f"{row['weighted_ratio']:.2f}",
        )
        for row in run(quick)
    ]
    head = (
        "float32 arrays",
        "threads",
        "floor (ms)",
        "median (ms)",
        "/ floor",
        "np.median (ms)",
        "faster",
        "weighted mean (ms)",
        "/ floor",
    )
    notes = (
        "Floor: np.max of each array and one fill of the result, with as many threads. All times are the least of "
        "many, floor and kernels in turn, into the same result.",
        "np.median is np.median(np.stack(arrays), axis=0), in one thread, the least of several; its bits are compared.",
        "Weighted mean: by numbers of examples, exact before the one rounding.",
        "Targets for 5 arrays: median 1.3 of the floor and 100 times faster than NumPy; weighted mean 1.6 of the floor "
        f"with {SMALL:,} coordinates and 1.1 with {LARGE:,}.",
    )
    return [Table("Aggregation kernels", head, tuple(rows), notes)]


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure every case; times in milliseconds, ratios to the floor. `quick`: a tenth of the sizes, three turns.

    Raises:
        AssertionError: if the median's bits are not NumPy's.
    """
    rows = []
    for n, size in CASES:
        rows += _case(n, size // 10 if quick else size, 0.0 if quick else SECONDS)
    return rows


def _case(n: int, size: int, seconds: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(n)
    arrays = [rng.standard_normal(size, dtype=np.float32) for _ in range(n)]
    weights = rng.integers(600, 1000, n).tolist()
    out = np.zeros(size, np.float32)
    expected = np.median(np.stack(arrays), axis=0)
    (numpy,) = _least([lambda: np.median(np.stack(arrays), axis=0)], seconds / 4, turns=1)
    assert np.array_equal(median(arrays, out=out).view(np.int32), expected.view(np.int32))
    rows = []
    for threads in (1, 2):
        floor, middle, mean = _least(
            [
                partial(_floor, arrays, out, threads),
                partial(median, arrays, out, threads),
                partial(weighted_mean, arrays, weights, out, threads),
            ],
            seconds,
        )
        rows.append(
            {
                "arrays": n,
                "coordinates": size,
                "threads": threads,
                "floor_ms": floor * 1e3,
                "median_ms": middle * 1e3,
                "median_ratio": middle / floor,
                "numpy_ms": numpy * 1e3,
                "speed_up": numpy / middle,
                "weighted_ms": mean * 1e3,
                "weighted_ratio": mean / floor,
            }
        )
    return rows


def _floor(arrays: Sequence[np.ndarray], out: np.ndarray, threads: int) -> None:
    def work(start: int, stop: int) -> None:
        for array in arrays:
            array[start:stop].max()
        out[start:stop].fill(0)

    share_out(out.size, threads, work)


def _least(actions: Sequence[Callable[[], object]], seconds: float, turns: int = 3) -> list[float]:
    """The least time of each action, all of them in turn until the time is over, but `turns` times at least."""
    best = [float("inf")] * len(actions)
    until, turn = perf_counter() + seconds, 0
    while turn < turns or perf_counter() < until:
        for i, action in enumerate(actions):
            start = perf_counter()
            action()
            best[i] = min(best[i], perf_counter() - start)
        turn += 1
    return best


def main() -> None:
    """Print the table."""
    for table in measure():
        print(table.text())


if __name__ == "__main__":
    main()
