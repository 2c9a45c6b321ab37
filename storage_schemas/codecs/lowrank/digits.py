"""Small integers packed into bytes so that a byte-wise entropy coder does not waste what it cannot split.

A coefficient that is nearly always 0 holds a fraction of a bit, and Huffman spends one on each. Several share
a byte here, as digits of a mixed-radix number, so that a byte holds four to eight bits of news. One that
needs more than a byte is two digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject

MOST = 2047
"""The largest limit: 4095 values are 16 times 256."""

_FINE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Digit:
    """`(value + limit) // divisor % radix` of one value.

    Attributes:
        value: Which value it is of.
        divisor: What a unit of it counts.
        radix: How many values it takes.
        byte: Which byte holds it.
        weight: What a unit of it counts in that byte.
    """

    value: int
    divisor: int
    radix: int
    byte: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """How values within limits lie in bytes; follows from the limits alone.

    Attributes:
        limits_R: int64 `[R]`, 1 to `MOST`: value j lies within -limit to limit.
        digits: In order of their place: wide ones first, so that like shares a byte with like.
        radices_G: int64 `[G]`, how many values each byte takes.
    """

    limits_R: NDArray[np.int64]
    digits: tuple[Digit, ...]
    radices_G: NDArray[np.int64]

    @classmethod
    def within(cls, limits_R: NDArray[np.int64]) -> Digits:
        """The packing of values within these limits."""
        parts = [part for value, limit in enumerate(limits_R.tolist()) for part in _parts(value, limit)]
        parts.sort(key=lambda part: -part[2])  # stable: of equal radix, in their order
        digits: list[Digit] = []
        radices: list[int] = []
        for value, divisor, radix in parts:
            if not radices or radices[-1] * radix > 256:
                radices.append(1)
            digits.append(
                Digit(value=value, divisor=divisor, radix=radix, byte=len(radices) - 1, weight=radices[-1])
            )
            radices[-1] *= radix
        return cls(limits_R=limits_R, digits=tuple(digits), radices_G=np.array(radices, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """G, bytes a row."""
        return len(self.radices_G)

    def pack(self, values_BR: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Bytes `[B, G]` of values `[B, R]`, all within the limits."""
        above_BR = values_BR + self.limits_R
        packed_BG = np.zeros((len(values_BR), self.bytes), dtype=np.uint8)
        for digit in self.digits:
            digit_B = above_BR[:, digit.value] // digit.divisor % digit.radix
            packed_BG[:, digit.byte] += (digit_B * digit.weight).astype(np.uint8)
        return packed_BG

    def unpack(self, packed_BG: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Values `[B, R]` of bytes `[B, G]`.

        Raises:
            CorruptObject: A byte or a value is beyond its limit.
        """
        values_BR = np.repeat(-self.limits_R[None, :], len(packed_BG), axis=0)
        for digit in self.digits:
            place_B = packed_BG[:, digit.byte] // np.uint8(digit.weight)
            values_BR[:, digit.value] += place_B.astype(np.int64) % digit.radix * digit.divisor
        if (packed_BG >= self.radices_G).any() or (values_BR > self.limits_R).any():
            raise CorruptObject("coefficients hold a byte that no encoder gives; their part is damaged")
        return values_BR


def _parts(value: int, limit: int) -> list[tuple[int, int, int]]:
    values = 2 * limit + 1
    if values <= 256:
        return [(value, 1, values)]
    return [(value, _FINE, -(-values // _FINE)), (value, 1, _FINE)]
