"""LLVM code of the largest magnitude."""

from typing import Any

from strategies.kernels.emit import I64, POINTER, Emitter, Value, integer_type

STRIP = 64
"""Coordinates at once: several vectors, so that their maxima need not wait for one another."""


def largest(bits: int) -> Any:
    """`name(array, out, start, stop)`: out[0 ... STRIP - 1] has the largest |x| as its maximum; NaN if one is NaN.

    Magnitudes order like their bits: numbers, infinity, NaN.
    """
    integer = integer_type(bits)
    e = Emitter(f"largest_f{bits}", [POINTER, POINTER, I64, I64])
    array, out, start, stop = e.arguments

    def body(k: Value, largest: Value) -> Value:
        magnitude = e.b.and_(e.stream(array, k, integer), e.constant(integer, (1 << (bits - 1)) - 1))
        return e.greatest([largest, magnitude])

    for e.lanes in (STRIP, 1):
        before = e.load(out, I64(0), integer)
        start, result = e.carry(start, stop, e.lanes, before, body)
        e.store(result, out, I64(0))
    return e.finished()
