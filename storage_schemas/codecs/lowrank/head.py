"""The head of a row: which classes it holds, which is the largest, how far each is from the profile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.lowrank import bits
from softcask.storage_schemas.errors import CorruptObject

EXPONENT_BITS = 8
OCTAVE, ONE = 8, 128
"""A scale is `2 ** ((exponent - 128) / 8)`: 1.5e-5 to 6e4 nats, in steps of 9 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The classes of B rows that are kept one by one.

    Attributes:
        classes_BK: int64, rising.
        top_B: int64, the place in the head of the row's largest logit.
        residuals_BK: float32, what lies above the profile, in nats.
    """

    classes_BK: NDArray[np.int64]
    top_B: NDArray[np.int64]
    residuals_BK: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFormat:
    """A head as bits: Elias-Fano set of classes, place of the largest, exponent of the scale, K codes.

    Attributes:
        classes: C.
        size: K.
        code_bits: Bits of a residual's code.
    """

    classes: int
    size: int
    code_bits: int

    @property
    def bytes(self) -> int:
        """Bytes a row."""
        return -(-sum(self.widths) // 8)

    @property
    def most(self) -> int:
        """The largest code; the least is its negative."""
        return (1 << (self.code_bits - 1)) - 1

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Bits of the set, of the place, of the exponent, and of the codes."""
        place = max(1, (self.size - 1).bit_length())
        return bits.set_width(self.size, self.classes), place, EXPONENT_BITS, self.size * self.code_bits

    def encode(self, head: Head) -> NDArray[np.uint8]:
        """Bytes `[B, bytes]` of B heads."""
        _, place_width, _, _ = self.widths
        exponents_B1 = self._exponents(np.abs(head.residuals_BK).max(axis=1, keepdims=True))
        codes_BK = np.rint(head.residuals_BK / scales(exponents_B1))
        codes_BK = np.clip(codes_BK, -self.most, self.most).astype(np.int64) + self.most
        fields = (
            bits.from_sets(head.classes_BK, self.classes),
            bits.from_fields(head.top_B[:, None], place_width),
            bits.from_fields(exponents_B1, EXPONENT_BITS),
            bits.from_fields(codes_BK, self.code_bits),
        )
        return np.packbits(np.concatenate(fields, axis=1), axis=1)

    def decode(self, packed_Bn: NDArray[np.uint8]) -> Head:
        """The heads of bytes `[B, bytes]`.

        Raises:
            CorruptObject: No encoder gives such bytes.
        """
        fields = np.split(np.unpackbits(packed_Bn, axis=1), np.cumsum(self.widths), axis=1)
        set_Bn, place_Bn, exponent_Bn, code_Bn, rest_Bn = fields
        classes_BK = bits.to_sets(set_Bn, self.size, self.classes)
        top_B1 = (
            bits.to_fields(place_Bn, place_Bn.shape[1])
            if self.size > 1
            else np.zeros((len(packed_Bn), 1), np.int64)
        )
        codes_BK = bits.to_fields(code_Bn, self.code_bits) - self.most
        beyond = (codes_BK > self.most).any() or (top_B1 >= self.size).any() or rest_Bn.any()
        if classes_BK is None or beyond:
            raise CorruptObject("a head holds bits that no encoder gives; its part is damaged")
        scales_B1 = scales(bits.to_fields(exponent_Bn, EXPONENT_BITS))
        return Head(
            classes_BK=classes_BK,
            top_B=top_B1[:, 0],
            residuals_BK=codes_BK.astype(np.float32) * scales_B1,
        )

    def _exponents(self, largest_B1: NDArray[np.float32]) -> NDArray[np.int64]:
        with np.errstate(divide="ignore"):
            exact_B1 = ONE + OCTAVE * np.log2(largest_B1 / self.most)
        exponents_B1: NDArray[np.int64] = np.clip(np.ceil(exact_B1), 0, 255).astype(np.int64)
        return exponents_B1


def scales(exponents: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a code of 1 stands for, in nats."""
    values: NDArray[np.float32] = np.exp2((exponents - ONE).astype(np.float32) / np.float32(OCTAVE))
    return values
