"""`python -m strategies.kernels`: compile the kernels once and compare them with NumPy: does this machine run them?"""

import signal
import sys
from time import perf_counter

import numpy as np

from strategies.kernels import all_finite, median, prepare, squared_distances, trimmed_mean, weighted_mean


def main() -> int:
    """Print one line; the exit status is 1 if a kernel is wrong here."""
    start = perf_counter()
    prepare()
    seconds = perf_counter() - start
    arrays = list(np.random.default_rng(0).standard_normal((5, 1003), dtype=np.float32))
    mean = np.average(np.stack(arrays).astype(np.longdouble), axis=0, weights=[3, 1, 4, 1, 5]).astype(np.float32)
    right = all_finite(arrays[0]) and not all_finite(np.array([1, np.inf], np.float32))
    right &= np.array_equal(median(arrays), np.median(np.stack(arrays), axis=0))
    right &= np.array_equal(weighted_mean(arrays, [3, 1, 4, 1, 5]), mean)
    kept = np.sort(np.stack(arrays), axis=0)[1:-1].astype(np.longdouble)
    right &= np.array_equal(trimmed_mean(arrays, 1), kept.mean(axis=0).astype(np.float32))
    apart = np.stack(arrays)[:, None].astype(np.float64) - np.stack(arrays)
    right &= np.allclose(squared_distances([[array] for array in arrays]), (apart**2).sum(axis=-1), rtol=1e-12)
    sys.stdout.write(f"kernels: {'ok' if right else 'WRONG RESULTS'}, compiled in {seconds:.2f} s\n")
    return 0 if right else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may leave
    sys.exit(main())
