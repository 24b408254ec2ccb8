"""Every random stream is a function of (seed, use, where) and never of the strategy or of the schedule.

So two strategies meet the same shuffles on the same client in the same round, and a resumed, re-ordered or deployed
run draws the same numbers as an undisturbed one.
"""

import zlib

import numpy as np


def stream(seed: int, use: str, *where: int) -> np.random.Generator:
    """The random generator for one use.

    Args:
        seed: the run's seed, >= 0.
        use: what it is for, as a word ("split", "model", "shuffle", "sample").
        where: non-negative integers that tell apart the places of one use, such as (round, client); always so many
            for one use, as NumPy takes missing ones for zeros.

    Returns:
        A PCG64 generator, seeded through `numpy.random.SeedSequence`: equal arguments give equal streams, different
        ones independent streams.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(use.encode()), *where])))


def integer(seed: int, use: str, *where: int) -> int:
    """One 31-bit integer out of `stream(seed, use, *where)`, for libraries that want a seed of their own."""
    return int(stream(seed, use, *where).integers(2**31))
