"""Fixed-width fields and Elias-Fano sets as rows of bits: what a head's bytes are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
"""0 or 1 a byte, `[B, n]`; within a field the most significant bit comes first."""


def from_fields(values_BK: NDArray[Any], width: int) -> Bits:
    """K numbers below `2**width` a row as `[B, K * width]` bits."""
    shifts_W = np.arange(width - 1, -1, -1, dtype=np.uint32)
    bits_BKW = (values_BK.astype(np.uint32)[:, :, None] >> shifts_W) & 1
    return bits_BKW.astype(np.uint8).reshape(len(values_BK), -1)


def to_fields(bits_Bn: Bits, width: int) -> NDArray[np.int64]:
    """The numbers `[B, n / width]` whose bits these are; width at least 1."""
    weights_W = np.left_shift(1, np.arange(width - 1, -1, -1, dtype=np.int64))
    fields_BKW = bits_Bn.reshape(len(bits_Bn), bits_Bn.shape[1] // width, width)
    return fields_BKW.astype(np.int64) @ weights_W


def low_width(size: int, universe: int) -> int:
    """Bits of an element that Elias-Fano keeps as they are; the rest it counts in unary."""
    return (universe // size).bit_length() - 1


def set_width(size: int, universe: int) -> int:
    """Bits of a set of `size` numbers below `universe`: half a bit an element over the least possible."""
    low = low_width(size, universe)
    return size * low + size + (universe >> low) + 1


def from_sets(elements_BK: NDArray[np.int64], universe: int) -> Bits:
    """Rising numbers below `universe` by Elias-Fano (1974): low bits as they are, high ones in unary."""
    B, K = elements_BK.shape
    low = low_width(K, universe)
    unary_Bn = np.zeros((B, K + (universe >> low) + 1), dtype=np.uint8)
    np.put_along_axis(unary_Bn, (elements_BK >> low) + np.arange(K), 1, axis=1)
    lows_Bn = from_fields(elements_BK & ((1 << low) - 1), low)
    return np.concatenate([lows_Bn, unary_Bn], axis=1)


def to_sets(bits_Bn: Bits, size: int, universe: int) -> NDArray[np.int64] | None:
    """The rising numbers `[B, size]` that `from_sets` made these bits of; None if it made no such bits."""
    low = low_width(size, universe)
    unary_Bn = bits_Bn[:, size * low :]
    if (unary_Bn.sum(axis=1, dtype=np.int64) != size).any():
        return None
    highs_BK = np.nonzero(unary_Bn)[1].reshape(-1, size) - np.arange(size)
    elements_BK = highs_BK << low
    if low:
        elements_BK |= to_fields(bits_Bn[:, : size * low], low)
    rising = bool((np.diff(elements_BK, axis=1) > 0).all())
    return elements_BK if rising and bool((elements_BK < universe).all()) else None
