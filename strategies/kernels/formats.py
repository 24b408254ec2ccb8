"""When a weighted sum is exact: conditions on exponents, see `sum_code`."""

from dataclasses import dataclass

SHORT = 28
"""Bits of a short weight or divisor: its products with a float32, and with what lies between two, are exact doubles."""


@dataclass(frozen=True)
class Format:
    """A floating type: its bits, the bits p of its significand, and the bias of its exponents."""

    bits: int
    p: int
    bias: int

    @property
    def parts(self) -> int:
        """How many doubles keep a sum."""
        return 2 if self.bits == 32 else 3

    @property
    def highest(self) -> int:
        """The exponent field of infinity and NaN."""
        return 2 * self.bias + 1


FORMATS = {32: Format(32, 24, 127), 64: Format(64, 53, 1023)}
GROUP = 8
"""So many arrays at most go into one call of `sum_code.fold`."""
MOST = 32
"""So many arrays at most go into one call of `sum_code.mean`; `anchor_limit` relies on it."""
HEADROOM = 3
"""By so many powers of two A is above the terms' bound and the sum before them, whichever is larger."""
LOWER = 48
"""By so many powers of two the second anchor is below the first: three times what eight terms can leave at most."""


def plain_limit(size: int, unit: int) -> int:
    """The largest top - bottom at which products of float32 add up exactly in one double."""
    return 53 - FORMATS[32].p + unit - size


def anchor_field(bits: int, size: int) -> int:
    """What to add to top's exponent field for that of an A three times above all partial sums."""
    return 1023 - FORMATS[bits].bias + max(size, 0) + HEADROOM


def anchor_limit(bits: int, unit: int) -> int:
    """The largest A's field - bottom's field at which 32 q of the lowest A are at most 2**53 last bits of a product."""
    highest = 100 + LOWER * (FORMATS[bits].parts - 2)
    return 1023 + highest + unit - FORMATS[bits].bias - (FORMATS[bits].p - 1)


def bottom_limit(bits: int, unit: int) -> int:
    """The least field of bottom at which no bit of a product falls below the least double, 2**-1074."""
    return FORMATS[bits].bias + (FORMATS[bits].p - 1) - unit - 1074
