"""LLVM code of squared distances.

Every term is a difference, squared and added in double precision: what is far from zero and close together loses
nothing, as it would in |a|^2 + |b|^2 - 2 ab. A sum is kept in `parts` parts, coordinate k in part k % parts whatever
the processor, so its bits depend neither on the machine nor on the arrays beside it.
"""

from collections.abc import Callable
from typing import Any

from strategies.kernels.emit import DOUBLE, I64, POINTER, Emitter, Type, Value, real_type


def between(bits: int, parts: int) -> Any:
    """`name(inputs, pairs, count, sums, start, stop)`: adds |a - b|^2 over the coordinates, for each pair of arrays.

    pairs: `count` x 2 int64; sums: `count` x `parts` doubles. start must be a multiple of `parts`.
    """
    kind = real_type(bits)
    e = Emitter(f"distances_f{bits}", [POINTER, POINTER, I64, POINTER, I64, I64])
    inputs, pairs, count, sums, start, stop = e.arguments
    b = e.b

    def pair(i: Value) -> None:
        at = b.mul(i, I64(2))
        wires = (b.load(e.at(pairs, w, I64), typ=I64) for w in (at, b.add(at, I64(1))))
        one, other = (b.load(e.at(inputs, wire, POINTER), typ=POINTER) for wire in wires)
        _add_squares(e, parts, sums, i, start, stop, lambda k: b.fsub(_wide(e, one, k, kind), _wide(e, other, k, kind)))

    e.count(I64(0), count, 1, pair)
    return e.finished()


def blend(bits: int, parts: int) -> Any:
    """`name(inputs, base, factors, n, point, start, stop)`: point = sum of factors * (inputs - base), in their order.

    factors: n doubles; point: doubles, which coordinate `start` begins.
    """
    kind = real_type(bits)
    e = Emitter(f"blend_f{bits}", [POINTER, POINTER, POINTER, I64, POINTER, I64, I64])
    inputs, base, factors, n, point, start, stop = e.arguments
    b = e.b

    def body(k: Value) -> None:
        origin = _wide(e, base, k, kind)

        def add(i: Value, total: Value) -> Value:
            array = b.load(e.at(inputs, i, POINTER), typ=POINTER)
            factor = b.load(e.at(factors, i, DOUBLE), typ=DOUBLE)
            return e.fma(b.fsub(_wide(e, array, k, kind), origin), e.same(factor), total)

        _, total = e.carry(I64(0), n, 1, e.constant(DOUBLE, 0), add)
        e.store(total, point, b.sub(k, start))

    e.strips(start, stop, parts, body)
    return e.finished()


def around(bits: int, parts: int) -> Any:
    """`name(inputs, base, n, point, sums, start, stop)`: adds |(input - base) - point|^2, for each of n arrays.

    point: doubles, which coordinate `start`, a multiple of `parts`, begins; sums: n x `parts` doubles.
    """
    kind = real_type(bits)
    e = Emitter(f"distances_around_f{bits}", [POINTER, POINTER, I64, POINTER, POINTER, I64, I64])
    inputs, base, n, point, sums, start, stop = e.arguments
    b = e.b

    def one(i: Value) -> None:
        array = b.load(e.at(inputs, i, POINTER), typ=POINTER)

        def difference(k: Value) -> Value:
            moved = b.fsub(_wide(e, array, k, kind), _wide(e, base, k, kind))
            return b.fsub(moved, e.load(point, b.sub(k, start), DOUBLE))

        _add_squares(e, parts, sums, i, start, stop, difference)

    e.count(I64(0), n, 1, one)
    return e.finished()


def _add_squares(
    e: Emitter, parts: int, sums: Value, i: Value, start: Value, stop: Value, difference: Callable[[Value], Value]
) -> None:
    """Add the squares of difference(k) to row i of `sums`; the last coordinates, fewer than `parts`, to its first."""
    row = e.b.mul(i, I64(parts))

    def add(k: Value, total: Value) -> Value:
        d = difference(k)
        return e.fma(d, d, total)

    for e.lanes in (parts, 1):
        start, total = e.carry(start, stop, e.lanes, e.load(sums, row, DOUBLE), add)
        e.store(total, sums, row)


def _wide(e: Emitter, array: Value, k: Value, kind: Type) -> Value:
    return e.widened(e.load(array, k, kind))
