"""LLVM code that brings values into order.

Floats are compared as integers: flip all bits but the sign of a negative one and its bits order like the values, -0.0
before 0.0. That makes minimum and maximum single, total and order-blind instructions.
"""

from collections.abc import Callable, Sequence
from typing import Any

from strategies.kernels.emit import I64, POINTER, Emitter, Type, Value, integer_type
from strategies.kernels.networks import Comparator


def key(e: Emitter, value: Value) -> Value:
    """The integer that orders like the float with these bits, and back: all bits but the sign flipped if negative."""
    integer = value.type.element
    sign = e.b.ashr(value, e.constant(integer, integer.width - 1))
    return e.b.xor(value, e.b.lshr(sign, e.constant(integer, 1)))


def arranged(e: Emitter, keys: Sequence[Value], network: Sequence[Comparator]) -> list[Value]:
    """Keys after a network, in registers; what no comparator keeps is left as it was."""
    wires = list(keys)
    for c in network:
        low, high = wires[c.low], wires[c.high]
        if c.keep_low:
            wires[c.low] = e.least([low, high])
        if c.keep_high:
            wires[c.high] = e.greatest([low, high])
    return wires


def compare_rows(
    e: Emitter, pairs: Value, count: Value, rows: Value, place: Callable[[Value], Value], integer: Type
) -> None:
    """The same in memory, with a loop over the network: place(wire) is where a wire's keys begin in `rows`.

    pairs: `count` x 2 int64, the wires of each comparator.
    """
    b = e.b

    def compare(i: Value) -> None:
        pair = b.mul(i, I64(2))
        low, high = (place(b.load(e.at(pairs, wire, I64), typ=I64)) for wire in (pair, b.add(pair, I64(1))))
        values = [e.load(rows, low, integer), e.load(rows, high, integer)]
        e.store(e.least(values), rows, low)
        e.store(e.greatest(values), rows, high)

    e.count(I64(0), count, 1, compare)


def arrange(bits: int, strip: int) -> Any:
    """`name(inputs, rows, width, start, stop, n, pairs, count)`: n arrays of floats through a network, any n.

    rows: n x `width` floats, which coordinate `start` begins; coordinates `start` to `stop` of wire i go to row i.
    """
    integer = integer_type(bits)
    e = Emitter(f"arrange_f{bits}", [POINTER, POINTER, I64, I64, I64, I64, POINTER, I64])
    inputs, rows, width, first, stop, n, pairs, count = e.arguments
    b = e.b

    def body(k: Value) -> None:
        column = b.sub(k, first)

        def place(wire: Value) -> Value:
            return b.add(b.mul(wire, width), column)

        def fill(wire: Value) -> None:
            array = b.load(e.at(inputs, wire, POINTER), typ=POINTER)
            e.store(key(e, e.stream(array, k, integer)), rows, place(wire))

        def restore(wire: Value) -> None:
            e.store(key(e, e.load(rows, place(wire), integer)), rows, place(wire))

        e.count(I64(0), n, 1, fill)
        compare_rows(e, pairs, count, rows, place, integer)
        e.count(I64(0), n, 1, restore)

    e.strips(first, stop, strip, body)
    return e.finished()
