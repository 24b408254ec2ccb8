"""Writing LLVM code in vectors: what the kernels share.

A kernel is one function with a loop over the coordinates `start` to `stop`, in strips of as many coordinates as there
are lanes in a vector value, and then again, with one lane, for those that are left over.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from llvmlite import ir

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, DOUBLE, POINTER = ir.FloatType(), ir.DoubleType(), ir.PointerType()
AHEAD = 128  # coordinates
Value = Any  # llvmlite's own classes are not typed
Type = Any


def real_type(bits: int) -> Type:
    """The floating type of 32 or 64 bits."""
    return FLOAT if bits == 32 else DOUBLE


def integer_type(bits: int) -> Type:
    """The integer type of 32 or 64 bits."""
    return I32 if bits == 32 else I64


class Emitter:
    """Adds instructions to one function that returns nothing.

    Attributes:
        arguments: the function's arguments, in order.
        b: llvmlite's builder, for the plain instructions.
        lanes: how many coordinates the vector values in hand stand for.
    """

    def __init__(self, name: str, arguments: Sequence[Type]) -> None:
        self._module = ir.Module(name)
        function = ir.Function(self._module, ir.FunctionType(ir.VoidType(), arguments), name)
        self.arguments: Sequence[Value] = function.args
        self.b = ir.IRBuilder(function.append_basic_block())
        self.lanes = 1

    def finished(self) -> Any:
        """End the function; the module that holds it."""
        self.b.ret_void()
        return self._module

    def intrinsic(self, name: str, result: Type, arguments: Sequence[Value]) -> Value:
        """Call one of LLVM's own functions."""
        kinds = [argument.type for argument in arguments]
        function = self._module.globals.get(name) or ir.Function(self._module, ir.FunctionType(result, kinds), name)
        return self.b.call(function, arguments)

    # Loops

    def count(self, start: Value, stop: Value, step: int, body: Callable[[Value], None]) -> Value:
        """`k = start; while k + step <= stop: body(k); k += step`. The k at which it ends."""

        def unchanged(k: Value, carried: Value) -> Value:
            body(k)
            return carried

        return self.carry(start, stop, step, I64(0), unchanged)[0]

    def carry(
        self, start: Value, stop: Value, step: int, first: Value, body: Callable[[Value, Value], Value]
    ) -> tuple[Value, Value]:
        """As `count`, with a value that goes through all turns: `carried = body(k, carried)`. Both at the end."""
        b, before = self.b, self.b.block
        head, inside, after = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        k, carried = b.phi(I64), b.phi(first.type)
        k.add_incoming(start, before)
        carried.add_incoming(first, before)
        following = b.add(k, I64(step))
        b.cbranch(b.icmp_signed("<=", following, stop), inside, after)
        b.position_at_end(inside)
        result = body(k, carried)
        k.add_incoming(following, b.block)
        carried.add_incoming(result, b.block)
        b.branch(head)
        b.position_at_end(after)
        return k, carried

    def strips(self, start: Value, stop: Value, lanes: int, body: Callable[[Value], None]) -> None:
        """Emit `body(k)` for coordinates k ... k + lanes - 1 at once, and again for those left over, one by one."""
        for self.lanes in (lanes, 1):
            start = self.count(start, stop, self.lanes, body)

    def if_any(self, condition: Value) -> Any:
        """A `with` block that runs if the condition holds in any lane, which is rare."""
        word = ir.IntType(self.lanes)
        return self.b.if_then(self.b.icmp_unsigned("!=", self.b.bitcast(condition, word), word(0)), likely=False)

    # Memory

    def at(self, pointer: Value, index: Value, kind: Type) -> Value:
        """The address of element `index` of an array of `kind`."""
        return self.b.gep(pointer, [index], source_etype=kind)

    def elements(self, pointer: Value, n: int, kind: Type) -> list[Value]:
        """The first n elements of an array of `kind`: single values."""
        return [self.b.load(self.at(pointer, I64(i), kind), typ=kind) for i in range(n)]

    def load(self, pointer: Value, index: Value, kind: Type) -> Value:
        """The elements from `index` on, one a lane."""
        return self.b.load(self.at(pointer, index, kind), typ=self.vector(kind), align=1)

    def store(self, value: Value, pointer: Value, index: Value) -> None:
        """Write one element a lane from `index` on."""
        self.b.store(value, self.at(pointer, index, value.type.element), align=1)

    def stream(self, pointer: Value, index: Value, kind: Type) -> Value:
        """As `load`, from a long array that is read once, and ask the second-level cache for what comes soon.

        The processor does that by itself, but for a few arrays at once only, and not from one page to the next: 10 %.
        Asking for what is past the end does no harm.
        """
        for i in range(0, self.lanes, 512 // kind.width):
            soon = self.at(pointer, self.b.add(index, I64(AHEAD + i)), kind)
            self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [soon, I32(0), I32(2), I32(1)])
        return self.load(pointer, index, kind)

    # Vectors

    def vector(self, kind: Type) -> Type:
        """One `kind` a lane."""
        return ir.VectorType(kind, self.lanes)

    def constant(self, kind: Type, value: float) -> Value:
        """One number in every lane."""
        return ir.Constant(self.vector(kind), [value] * self.lanes)

    def same(self, value: Value) -> Value:
        """One value that is known when the kernel runs, in every lane."""
        vector = self.vector(value.type)
        first = self.b.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
        return self.b.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))

    def bits(self, value: Value) -> Value:
        """The bits of floating values, as integers."""
        return self.b.bitcast(value, self.vector(I32 if value.type.element == FLOAT else I64))

    def real(self, value: Value) -> Value:
        """The floating values that have these bits."""
        return self.b.bitcast(value, self.vector(FLOAT if value.type.element == I32 else DOUBLE))

    def magnitude(self, value: Value) -> Value:
        """The absolute value of doubles."""
        return self.intrinsic(f"llvm.fabs.v{self.lanes}f64", value.type, [value])

    def widened(self, value: Value) -> Value:
        """The same numbers in double precision; unsigned integers in 64 bits."""
        if value.type.element in (DOUBLE, I64):
            return value
        if value.type.element == FLOAT:
            return self.b.fpext(value, self.vector(DOUBLE))
        return self.b.zext(value, self.vector(I64))

    def least(self, values: Sequence[Value], order: str = "signed") -> Value:
        """The smallest of some integers, lane by lane."""
        return self._chosen("<", values, order)

    def greatest(self, values: Sequence[Value], order: str = "signed") -> Value:
        """The largest of some integers, lane by lane."""
        return self._chosen(">", values, order)

    def _chosen(self, relation: str, values: Sequence[Value], order: str) -> Value:
        compare = self.b.icmp_signed if order == "signed" else self.b.icmp_unsigned
        return reduce(lambda x, y: self.b.select(compare(relation, x, y), x, y), values)

    def any_of(self, conditions: Sequence[Value]) -> Value:
        """Whether one of the conditions holds, lane by lane."""
        return reduce(self.b.or_, conditions)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """`x * y + z` in double precision, rounded once."""
        return self.intrinsic(f"llvm.fma.v{self.lanes}f64", self.vector(DOUBLE), [x, y, z])

    def two_sum(self, x: Value, y: Value) -> tuple[Value, Value]:
        """`x + y` rounded, and exactly what the rounding left (Knuth)."""
        b = self.b
        total = b.fadd(x, y)
        of_y = b.fsub(total, x)
        return total, b.fadd(b.fsub(x, b.fsub(total, of_y)), b.fsub(y, of_y))
