"""LLVM code of exact weighted sums.

The sum of w * x over clients is formed without any rounding error and rounded once at the end, so it cannot depend on
the order of the clients. There are two ways:

Plain: float32 values of about one size with short weights (numbers of examples) add up in one double, with not a bit
lost. The exponents tell, and nearly always it is so.

Anchored: else each product is split at one place, the last bit q of a power of two A above anything that a partial sum
can reach. The upper parts are multiples of q and add up exactly on top of A; the lower parts, at most q / 2 each, add
up exactly in a second double as long as all their bits lie within 53 of each other (the extraction of Rump, Ogita and
Oishi, "Accurate floating-point summation part I", SIAM J. Sci. Comput. 31, 2008). A is chosen for each coordinate. For
float64, whose products have up to 106 bits, there is a second such place below, and the sum has three parts.

Where neither holds, as with 1e30 beside 1e-30, a coordinate is marked as wide, left as it was, and summed by wide.py.

The conditions: let top and bottom be the exponents of the largest and the smallest nonzero |x|, p the bits of a
significand, 2**size >= the sum of all |w|, and 2**unit the last bit of any w. Then every partial sum is below
2**(top + 1 + size), and every product a multiple of 2**(bottom - p + 1 + unit). `formats.py` has what follows.
"""

from collections.abc import Callable, Sequence
from typing import Any

from strategies.kernels.emit import DOUBLE, FLOAT, I8, I32, I64, POINTER, Emitter, Value, integer_type, real_type
from strategies.kernels.formats import FORMATS, HEADROOM, LOWER, Format
from strategies.kernels.networks import trimming_network
from strategies.kernels.order_code import arranged, key


def mean(n: int, trim: int, lanes: int) -> Any:
    """`name(inputs, weights, out, wide, found, plain, field, limit, divisor, reciprocal, start, stop)` for float32.

    out = sum of weights * inputs over divisor, rounded once. Weights and divisor must be short (see `formats`). Where a
    coordinate is too wide, wide[k] (int8) and found[0] (int64) become 1, and out[k] means nothing.

    With trim > 0 the `trim` smallest and largest of the inputs at each coordinate are left out before; there are then
    n - 2 * trim weights, which must be equal, as it is open which of the others meets which weight.

    The plain way rounds twice, to double and to float32. That can differ from rounding once only if the double falls
    between two float32, on m of 25 bits, without being the quotient itself. But divisor * m is a double too, so that it
    differs from the sum by the last bit of the sum at least, and m from the quotient by more than half its last bit.
    """
    one = FORMATS[32]
    e = Emitter(f"mean_of_{n}_trimmed_{trim}", [POINTER] * 5 + [I64] * 3 + [DOUBLE] * 2 + [I64] * 2)
    inputs, weights, out, wide, found, plain, field, limit, divisor, reciprocal, start, stop = e.arguments
    arrays, factors, b = e.elements(inputs, n, POINTER), e.elements(weights, n - 2 * trim, DOUBLE), e.b

    def body(k: Value) -> None:
        values = [e.stream(array, k, I32) for array in arrays]
        if trim:
            wires = arranged(e, [key(e, value) for value in values], trimming_network(n, trim))
            values = [key(e, wire) for wire in wires[trim : n - trim]]
        largest, least = _extremes(e, values)
        top, bottom = _field(e, largest, one), _field(e, least, one)
        doubles = [e.widened(e.real(value)) for value in values]
        total = b.fmul(doubles[0], e.same(factors[0]))
        for x, w in zip(doubles[1:], factors[1:], strict=True):
            total = e.fma(x, e.same(w), total)
        value, _ = _quotient(e, total, None, divisor, reciprocal)
        e.store(_minus_zero(e, b.fptrunc(value, e.vector(FLOAT)), least), out, k)
        with e.if_any(b.icmp_signed(">", b.sub(top, bottom), e.same(b.trunc(plain, I32)))):
            anchor = b.add(e.widened(top), e.same(field))
            too_far = b.icmp_signed(">", b.sub(anchor, e.widened(bottom)), e.same(limit))
            is_wide = b.or_(too_far, b.icmp_unsigned("==", top, e.constant(I32, one.highest)))
            high, low = _anchored(e, values, [e.same(w) for w in factors], anchor, [], one, exact_products=True)
            value = _odd(e, *_quotient(e, high, low, divisor, reciprocal))
            e.store(_minus_zero(e, b.fptrunc(value, e.vector(FLOAT)), least), out, k)
            _mark(e, is_wide, wide, found, k)

    e.strips(start, stop, lanes, body)
    return e.finished()


def fold(n: int, bits: int, exact_products: bool, fresh: bool, lanes: int) -> Any:
    """`name(inputs, weights, parts ..., least, wide, found, field, limit, bottom_limit, start, stop)`.

    Adds weights * inputs to the state: the parts, float64, which sum to the sum, the largest first; least, which keeps
    the smallest nonzero |x| so far (see `_extremes`); wide, int8. A coordinate that is too wide, now or before, is left
    as it was but for wide[k] = 1 and found[0] = 1. Fresh: the state is only written, and begins at zero.
    """
    f, integer = FORMATS[bits], integer_type(bits)
    name = f"fold_{n}_f{bits}{'_fresh' * fresh}{'_exact' * exact_products}"
    e = Emitter(name, [POINTER] * (5 + f.parts) + [I64] * 5)
    inputs, weights, *parts, leasts, wide, found, field, limit, lowest, start, stop = e.arguments
    arrays, factors, b = e.elements(inputs, n, POINTER), e.elements(weights, n, DOUBLE), e.b

    def body(k: Value) -> None:
        values = [e.stream(array, k, integer) for array in arrays]
        largest, least = _extremes(e, values)
        anchor = b.add(e.widened(_field(e, largest, f)), e.same(field))
        is_wide = [b.icmp_unsigned("==", _field(e, largest, f), e.constant(integer, f.highest))]
        before = [e.constant(DOUBLE, 0)] * f.parts
        if f.parts > 2:
            anchor = e.greatest([anchor, e.constant(I64, LOWER + 1)])
        if not fresh:
            before = [e.load(part, k, DOUBLE) for part in parts]
            of_high = b.and_(b.lshr(e.bits(before[0]), e.constant(I64, 52)), e.constant(I64, 2047))
            anchor = e.greatest([anchor, b.add(of_high, e.constant(I64, HEADROOM))])
            least_before = e.load(leasts, k, integer)
            least = e.least([least, least_before], "unsigned")
            is_wide.append(b.icmp_unsigned("!=", e.load(wide, k, I8), e.constant(I8, 0)))
        bottom = e.widened(_field(e, least, f))
        is_wide += [
            b.icmp_signed(">", b.sub(anchor, bottom), e.same(limit)),
            b.icmp_signed("<", bottom, e.same(lowest)),
            b.icmp_signed(">", anchor, e.constant(I64, 2040)),  # A has to be finite
        ]
        any_wide = e.any_of(is_wide)
        sums = _anchored(e, values, [e.same(w) for w in factors], anchor, [] if fresh else before, f, exact_products)
        for part, new, old in zip(parts, sums, before, strict=True):
            e.store(b.select(any_wide, old, new), part, k)
        e.store(least if fresh else b.select(any_wide, least_before, least), leasts, k)
        if fresh:
            e.store(e.constant(I8, 0), wide, k)
        _mark(e, any_wide, wide, found, k)

    e.strips(start, stop, lanes, body)
    return e.finished()


def divide(bits: int, odd: bool, lanes: int) -> Any:
    """`name(parts ..., least, out, divisor, reciprocal, start, stop)`: out = sum of parts / divisor, rounded once.

    Odd (bits = 64): rounded to odd, so that rounding to a shorter type once more is still rounding once.
    """
    f, integer = FORMATS[bits], integer_type(bits)
    e = Emitter(f"divide_f{bits}{'_odd' * odd}", [POINTER] * (2 + f.parts) + [DOUBLE] * 2 + [I64] * 2)
    *parts, leasts, out, divisor, reciprocal, start, stop = e.arguments

    def body(k: Value) -> None:
        high, low = _high_and_low(e, parts, k)
        value, rest = _quotient(e, high, low, divisor, reciprocal)
        if bits == 64 and not odd:
            value = _nearest(e, value, rest, lambda other: _remainder(e, other, high, low, divisor))
        rounded = _rounded(e, value, rest, f, odd)
        e.store(_minus_zero(e, rounded, e.load(leasts, k, integer)), out, k)

    e.strips(start, stop, lanes, body)
    return e.finished()


def step(bits: int, odd: bool, lanes: int) -> Any:
    """`name(parts ..., base, out, factor, start, stop)`: out = base + factor * sum of parts, rounded once.

    The product carries 100 bits before that, all of them if factor is 1. Where the sum is 0, out is base to the bit.
    """
    f = FORMATS[bits]
    e = Emitter(f"step_f{bits}{'_odd' * odd}", [POINTER] * (2 + f.parts) + [DOUBLE] + [I64] * 2)
    *parts, base, out, factor, start, stop = e.arguments
    b = e.b

    def body(k: Value) -> None:
        (high, low), old = _high_and_low(e, parts, k), e.load(base, k, real_type(f.bits))
        scale = e.same(factor)
        product = b.fmul(high, scale)
        of_product = b.fadd(e.fma(high, scale, b.fneg(product)), b.fmul(low, scale))
        total, of_total = e.two_sum(e.widened(old), product)
        rest = _odd(e, *e.two_sum(of_total, of_product))  # so a tie of what follows is broken by what is far below
        new = _rounded(e, *e.two_sum(total, rest), f, odd)
        unmoved = b.fcmp_ordered("==", high, e.constant(DOUBLE, 0))
        e.store(b.select(unmoved, old, new), out, k)

    e.strips(start, stop, lanes, body)
    return e.finished()


def _extremes(e: Emitter, values: Sequence[Value]) -> tuple[Value, Value]:
    """The largest and the least |x| as integers: 2 |x|'s bits + its sign, of the least 2 less, wrapping around.

    So zeros, of which nothing follows, come out above everything as the least; and it has all bits set only if every
    value is -0.0.
    """
    b, integer = e.b, values[0].type.element
    one, last = e.constant(integer, 1), e.constant(integer, integer.width - 1)
    turned = [b.or_(b.shl(value, one), b.lshr(value, last)) for value in values]
    less = [b.sub(value, e.constant(integer, 2)) for value in turned]
    return e.greatest(turned, "unsigned"), e.least(less, "unsigned")


def _field(e: Emitter, turned: Value, f: Format) -> Value:
    """The exponent field in what `_extremes` returns."""
    return e.b.lshr(turned, e.constant(turned.type.element, f.p))


def _anchored(
    e: Emitter,
    values: Sequence[Value],
    weights: Sequence[Value],
    field: Value,
    before: Sequence[Value],
    f: Format,
    exact_products: bool,
) -> list[Value]:
    """The parts of `before` + the sum of weights * values.

    The anchors are A = 1.5 * 2**(field - 1023) and for three parts one that is 2**LOWER lower. Each stays in its binade
    whatever is added, so its last bit stays too.
    """
    b = e.b
    anchors = []
    for level in range(f.parts - 1):
        lower = b.sub(field, e.constant(I64, level * LOWER))
        anchors.append(e.real(b.or_(b.shl(lower, e.constant(I64, 52)), e.constant(I64, 1 << 51))))
    sums = [*anchors, e.constant(DOUBLE, 0)]

    def add(term: Value, level: int) -> None:
        for i in range(level, f.parts - 1):
            moved = b.fadd(sums[i], term)
            term = b.fsub(term, b.fsub(moved, sums[i]))
            sums[i] = moved
        sums[-1] = b.fadd(sums[-1], term)

    for level, part in enumerate(before):
        add(part, level)
    for value, w in zip(values, weights, strict=True):
        x = e.widened(e.real(value))
        if exact_products:
            moved = e.fma(x, w, sums[0])
            add(e.fma(x, w, b.fneg(b.fsub(moved, sums[0]))), 1)
            sums[0] = moved
        else:
            product = b.fmul(x, w)
            add(product, 0)
            add(e.fma(x, w, b.fneg(product)), 1)
    parts = [*(b.fsub(total, anchor) for total, anchor in zip(sums, anchors, strict=False)), sums[-1]]
    for i in [*reversed(range(f.parts - 1)), *range(1, f.parts - 1)]:  # so that none overlaps the next
        parts[i : i + 2] = e.two_sum(parts[i], parts[i + 1])
    return parts


def _high_and_low(e: Emitter, parts: Sequence[Value], k: Value) -> tuple[Value, Value]:
    """Two doubles for the parts of a sum; the lower one rounded to odd where there are three."""
    high, *rest = (e.load(part, k, DOUBLE) for part in parts)
    return high, rest[0] if len(rest) == 1 else _odd(e, *rest)


def _quotient(e: Emitter, high: Value, low: Value | None, divisor: Value, reciprocal: Value) -> tuple[Value, Value]:
    """One of the two doubles around (high + low) / divisor, and the remainder."""
    first = e.b.fmul(high, e.same(reciprocal))
    quotient = e.fma(_remainder(e, first, high, low, divisor), e.same(reciprocal), first)
    return quotient, _remainder(e, quotient, high, low, divisor)


def _remainder(e: Emitter, quotient: Value, high: Value, low: Value | None, divisor: Value) -> Value:
    """`high + low - quotient * divisor`: its sign, and at least if low is None or the divisor is short its value."""
    rest = e.fma(e.b.fneg(quotient), e.same(divisor), high)
    return rest if low is None else e.b.fadd(rest, low)


def _nearest(e: Emitter, value: Value, rest: Value, remainder: Callable[[Value], Value]) -> Value:
    """Value or its neighbour on rest's side, whichever leaves the smaller remainder; of two equals the even one."""
    b = e.b
    other = e.real(b.add(e.bits(value), _towards(e, value, rest)))
    left, other_left = e.magnitude(rest), e.magnitude(remainder(other))
    last = b.icmp_unsigned("!=", b.and_(e.bits(value), e.constant(I64, 1)), e.constant(I64, 0))
    tie = b.and_(b.fcmp_ordered("==", other_left, left), last)
    return b.select(b.or_(b.fcmp_ordered("<", other_left, left), tie), other, value)


def _rounded(e: Emitter, value: Value, rest: Value, f: Format, odd: bool) -> Value:
    """Value + rest, of which value is the double nearest, in the format asked for."""
    if f.bits == 32:
        return e.b.fptrunc(_odd(e, value, rest), e.vector(FLOAT))
    return _odd(e, value, rest) if odd else value


def _odd(e: Emitter, value: Value, rest: Value) -> Value:
    """Value + rest rounded to odd: if there is a rest, of the two doubles around it the one whose last bit is set."""
    b = e.b
    bits = e.bits(value)
    even = b.icmp_unsigned("==", b.and_(bits, e.constant(I64, 1)), e.constant(I64, 0))
    inexact = b.fcmp_ordered("!=", rest, e.constant(DOUBLE, 0))
    return e.real(b.select(b.and_(even, inexact), b.add(bits, _towards(e, value, rest)), bits))


def _towards(e: Emitter, value: Value, rest: Value) -> Value:
    """What to add to value's bits to go to the next double on rest's side: 1 if that is away from 0, else -1."""
    differ = e.b.ashr(e.b.xor(e.bits(value), e.bits(rest)), e.constant(I64, 63))
    return e.b.or_(differ, e.constant(I64, 1))


def _minus_zero(e: Emitter, value: Value, least: Value) -> Value:
    """-0.0 where all that was added is -0.0."""
    ones = e.constant(least.type.element, -1)
    return e.b.select(e.b.icmp_unsigned("==", least, ones), e.constant(value.type.element, -0.0), value)


def _mark(e: Emitter, is_wide: Value, wide: Value, found: Value, k: Value) -> None:
    """Note which coordinates are too wide, where some may be."""
    with e.if_any(is_wide):
        e.b.store(I64(1), found)
        e.store(e.b.zext(is_wide, e.vector(I8)), wide, k)
