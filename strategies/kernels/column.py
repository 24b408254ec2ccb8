"""The exact weighted sum over clients of one array: its state between calls, and how it ends in a result."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from math import frexp, fsum
from typing import Any

import numpy as np

from strategies.kernels.arrays import address, addresses, share_out
from strategies.kernels.formats import (
    FORMATS,
    GROUP,
    MOST,
    SHORT,
    anchor_field,
    anchor_limit,
    bottom_limit,
    plain_limit,
)
from strategies.kernels.machine import Kernel, compiled, lanes
from strategies.kernels.wide import Wide

BLOCK = 1 << 15
"""Coordinates whose state stays in the second-level cache while several groups of arrays are folded into it."""


@dataclass(frozen=True)
class Weights:
    """Some weights, 2**size >= their sum of magnitudes, and 2**unit, the last bit of any; short: see `formats`."""

    values: np.ndarray
    size: int
    unit: int
    short: bool

    @classmethod
    @lru_cache(16)
    def of(cls, *values: float) -> "Weights":
        """Of finite weights, none of them 0."""
        units, lengths = [], []
        for value in values:
            numerator, denominator = value.as_integer_ratio()
            zeros = (numerator & -numerator).bit_length() - 1
            units.append(zeros - (denominator.bit_length() - 1))
            lengths.append(numerator.bit_length() - zeros)
        size = frexp(fsum(abs(value) for value in values))[1]
        return cls(np.array(values, np.float64), size, min(units, default=0), max(lengths, default=0) <= SHORT)


@dataclass(frozen=True)
class Term:
    """`weight` times a flat array of the column's working type."""

    array: np.ndarray
    weight: float


@dataclass(frozen=True)
class State:
    """A sum, for each coordinate (see `sum_code.fold`): two or three doubles, as much as a float, and a byte."""

    parts: list[np.ndarray]
    least: np.ndarray
    wide: np.ndarray

    @classmethod
    def zero(cls, size: int, bits: int) -> "State":
        """The sum of nothing."""
        unsigned = np.uint32 if bits == 32 else np.uint64
        parts = [np.zeros(size) for _ in range(FORMATS[bits].parts)]
        return cls(parts, np.zeros(size, unsigned), np.zeros(size, np.int8))

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        return [(address(array), array.itemsize) for array in (*self.parts, self.least, self.wide)]

    def pointers(self, before: int) -> list[int]:
        """Where the parts, least and wide begin, or would if `before` coordinates came before the first."""
        return [place - before * size for place, size in self._places]

    def load(self, other: "State", start: int, stop: int) -> None:
        """Take over some coordinates of another state."""
        for mine, its in zip(
            [*self.parts, self.least, self.wide], [*other.parts, other.least, other.wide], strict=True
        ):
            mine[: stop - start] = its[start:stop]


@dataclass(frozen=True)
class Ending:
    """What becomes of a sum: sum / divisor, or base + factor * sum."""

    divisor: float = 1.0
    factor: float = 1.0
    base: np.ndarray | None = None

    def at(self, index: np.ndarray) -> "Ending":
        """The same for some coordinates only."""
        return self if self.base is None else replace(self, base=self.base[index])

    def write(self, state: State, out: np.ndarray, odd: bool, start: int, stop: int, before: int = 0) -> None:
        """Write the results of coordinates start to stop to out; `state` begins with coordinate `before`."""
        bits = out.itemsize * 8
        *parts, least, _ = state.pointers(before)
        if self.base is None:
            kernel = _kernel("divide", bits, odd)
            kernel(*parts, least, address(out), self.divisor, 1 / self.divisor, start, stop)
        else:
            _kernel("step", bits, odd)(*parts, address(self.base), address(out), self.factor, start, stop)


class Column:
    """The sum of one array over clients.

    Args:
        size: coordinates of the flat array.
        bits: 32 or 64, of the floats that it is given and returns.
        odd: return doubles rounded to odd, to be rounded to a shorter type (bits = 64).
        threads: how many share the work.
    """

    def __init__(self, size: int, bits: int, odd: bool, threads: int) -> None:
        self._size, self._bits, self._odd, self._threads = size, bits, odd, threads
        self._state: State | None = None
        self._wide = Wide()

    def fold(self, terms: Sequence[Term], unit: int) -> None:
        """Add 1 to GROUP terms to the state; 2**unit is the last bit of any weight so far."""
        fresh = self._state is None
        state = self._state = self._state or State.zero(self._size, self._bits)
        group = _Group(terms, self._bits, unit)
        found = np.zeros(1, np.int64)
        share_out(self._size, self._threads, lambda start, stop: group.fold(state, found, fresh, start, stop))
        if found[0]:
            self._absorb(self._wide, np.flatnonzero(state.wide), terms)

    def result(self, terms: Sequence[Term], unit: int, ending: Ending, out: np.ndarray) -> None:
        """Write the end of state + terms to the flat `out`; the state stays as it is."""
        weights = Weights.of(*(term.weight for term in terms))
        if self._state is None and not terms:
            ending.write(State.zero(self._size, self._bits), out, self._odd, 0, self._size)
            return
        short = weights.short and Weights.of(ending.divisor).short and unit > -500 and weights.size < 500
        if short and self._state is None and self._bits == 32 and ending.base is None and len(terms) <= MOST:
            index = mean_in_one_pass([term.array for term in terms], weights, ending.divisor, out, self._threads)
        else:
            index = self._through_blocks(terms, unit, ending, out)
        if len(index):
            wide = self._wide.copy()
            self._absorb(wide, index, terms)
            state = State.zero(len(wide.index), self._bits)
            state.parts[:2] = wide.total()
            some = np.empty(len(wide.index), out.dtype)
            ending.at(wide.index).write(state, some, self._odd, 0, len(some))
            out[wide.index] = some

    def _absorb(self, wide: Wide, index: np.ndarray, terms: Sequence[Term]) -> None:
        """Add terms to `wide` at the coordinates `index` that the kernels left alone, new ones from the state on."""
        new = np.setdiff1d(index, wide.index, assume_unique=True)
        wide.admit(new, [] if self._state is None else [part[new] for part in self._state.parts])
        for term in terms:
            wide.add(term.array, term.weight)

    def _through_blocks(self, terms: Sequence[Term], unit: int, ending: Ending, out: np.ndarray) -> np.ndarray:
        """Fold group after group into a copy of the state, block by block. The coordinates too wide for it."""
        groups = [_Group(terms[i : i + GROUP], self._bits, unit) for i in range(0, len(terms), GROUP)]
        index: list[np.ndarray] = []

        def work(start: int, stop: int) -> None:
            state, found = State.zero(min(BLOCK, stop - start), self._bits), np.zeros(1, np.int64)
            for begin in range(start, stop, BLOCK):
                end = min(begin + BLOCK, stop)
                if self._state is not None:
                    state.load(self._state, begin, end)
                for i, group in enumerate(groups):
                    group.fold(state, found, self._state is None and i == 0, begin, end, before=begin)
                ending.write(state, out, self._odd, begin, end, before=begin)
                if found[0] or len(self._wide.index):
                    index.append(begin + np.flatnonzero(state.wide[: end - begin]))
                    found[0] = 0

        share_out(self._size, self._threads, work)
        return np.concatenate(index) if index else np.empty(0, np.int64)


class _Group:
    """Up to GROUP terms, ready for the kernel that folds them."""

    def __init__(self, terms: Sequence[Term], bits: int, unit: int) -> None:
        weights = Weights.of(*(term.weight for term in terms))
        inputs = addresses([term.array for term in terms])
        self._alive = weights, inputs, terms  # what the pointers point to
        self._pointers = address(inputs), address(weights.values)
        self._limits = anchor_field(bits, weights.size), anchor_limit(bits, unit), bottom_limit(bits, unit)
        self._kind = len(terms), bits, bits == 32 and weights.short

    def fold(self, state: State, found: np.ndarray, fresh: bool, start: int, stop: int, before: int = 0) -> None:
        """Add the terms to the state, which begins with coordinate `before`."""
        kernel = _kernel("fold", *self._kind, fresh)
        kernel(*self._pointers, *state.pointers(before), address(found), *self._limits, start, stop)


def mean_in_one_pass(
    arrays: Sequence[np.ndarray], weights: Weights, divisor: float, out: np.ndarray, threads: int, trim: int = 0
) -> np.ndarray:
    """Write the sum of short weights * flat float32 arrays over a short divisor to `out`; see `sum_code.mean`.

    Returns:
        The coordinates that are too wide for it, and still to be written.
    """
    kernel, inputs = _kernel("mean", len(arrays), trim), addresses(arrays)
    wide, found = np.zeros(out.size, np.int8), np.zeros(1, np.int64)
    size, unit = weights.size, weights.unit
    limits = plain_limit(size, unit), anchor_field(32, size), anchor_limit(32, unit)
    pointers = [address(a) for a in (inputs, weights.values, out, wide, found)]
    share_out(out.size, threads, lambda start, stop: kernel(*pointers, *limits, divisor, 1 / divisor, start, stop))
    return np.flatnonzero(wide) if found[0] else np.empty(0, np.int64)


@cache
def _kernel(name: str, *kind: Any) -> Kernel:
    """A kernel of `sum_code`, compiled when it is first asked for."""
    from strategies.kernels import sum_code

    return compiled(getattr(sum_code, name)(*kind, lanes()))
