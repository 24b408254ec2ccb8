"""LLVM code of the median.

A median of zeros is 0.0 as in NumPy, but -0.0 if all values are: what nobody changed is not changed here either.
"""

from functools import partial, reduce
from typing import Any

from strategies.kernels.emit import DOUBLE, FLOAT, I64, POINTER, Emitter, Value, integer_type, real_type
from strategies.kernels.networks import middle_network
from strategies.kernels.order_code import arranged, compare_rows, key


def unrolled(n: int, bits: int, lanes: int) -> Any:
    """`name(inputs, out, start, stop)`: the whole network for n arrays in straight code, in registers.

    inputs: pointers to the n arrays of `bits`-bit floats; out: the result array.
    """
    integer = integer_type(bits)
    e = Emitter(f"median_of_{n}_f{bits}", [POINTER, POINTER, I64, I64])
    inputs, out, start, stop = e.arguments
    arrays = e.elements(inputs, n, POINTER)

    def body(k: Value) -> None:
        keys = [key(e, e.stream(array, k, integer)) for array in arrays]
        wires = arranged(e, keys, middle_network(n))
        low, high = wires[(n - 1) // 2], wires[n // 2]
        result = _middle(e, low, high, n % 2 == 1, bits)
        e.store(result, out, k)
        with e.if_any(_is_minus_zero(e, low)):
            e.store(_unless_all(e, reduce(e.b.and_, map(partial(_is_minus_zero, e), keys)), result), out, k)

    e.strips(start, stop, lanes, body)
    return e.finished()


def looped(bits: int, strip: int) -> Any:
    """`name(inputs, out, start, stop, n, pairs, count, scratch)`: any n, with a loop over the network's comparators.

    pairs: `count` x 2 int64, the wires of each comparator; scratch: n x `strip` numbers.
    """
    integer = integer_type(bits)
    e = Emitter(f"median_f{bits}", [POINTER, POINTER, I64, I64, I64, POINTER, I64, POINTER])
    inputs, out, start, stop, n, pairs, count, scratch = e.arguments
    b = e.b

    def row(wire: Value) -> Value:
        return b.mul(wire, I64(strip))

    def body(k: Value) -> None:
        def fill(wire: Value) -> None:
            array = b.load(e.at(inputs, wire, POINTER), typ=POINTER)
            e.store(key(e, e.stream(array, k, integer)), scratch, row(wire))

        e.count(I64(0), n, 1, fill)
        compare_rows(e, pairs, count, scratch, row, integer)
        upper = b.lshr(n, I64(1))
        lower = b.lshr(b.sub(n, I64(1)), I64(1))
        low, high = (e.load(scratch, row(wire), integer) for wire in (lower, upper))
        odd = b.icmp_unsigned("==", lower, upper)
        result = b.select(odd, _middle(e, low, high, True, bits), _middle(e, low, high, False, bits))
        e.store(result, out, k)

        def also(wire: Value, so_far: Value) -> Value:
            return b.and_(so_far, _is_minus_zero(e, e.load(scratch, row(wire), integer)))

        with e.if_any(_is_minus_zero(e, low)):
            _, every = e.carry(I64(0), n, 1, _is_minus_zero(e, low), also)
            e.store(_unless_all(e, every, result), out, k)

    e.strips(start, stop, strip, body)
    return e.finished()


def _middle(e: Emitter, low: Value, high: Value, odd: bool, bits: int) -> Value:
    """The median's float from the keys of the two middles, one and the same for odd n. The sum of zeros is 0.0."""
    b, zero, half = e.b, e.constant(DOUBLE, 0.0), e.constant(DOUBLE, 0.5)
    if odd:
        return b.fadd(e.real(key(e, high)), e.constant(real_type(bits), 0.0))
    x, y = (e.widened(e.real(key(e, wire))) for wire in (low, high))
    mean = b.fmul(b.fadd(b.fadd(x, y), zero), half)
    if bits == 32:  # a sum of two floats, rounded to double and then to float, is the sum rounded once
        return b.fptrunc(mean, e.vector(FLOAT))
    infinite = b.fcmp_ordered("==", e.magnitude(mean), e.constant(DOUBLE, float("inf")))
    return b.select(infinite, b.fadd(b.fmul(x, half), b.fmul(y, half)), mean)


def _is_minus_zero(e: Emitter, key: Value) -> Value:
    return e.b.icmp_unsigned("==", key, e.constant(key.type.element, -1))


def _unless_all(e: Emitter, every: Value, result: Value) -> Value:
    """-0.0 where all values are -0.0, else the result."""
    return e.b.select(every, e.constant(result.type.element, -0.0), result)
