"""Half precision at the speed of memory: NumPy converts one number at a time, integers go by the vector.

Bit for bit what `astype` gives, for the finite numbers that logits below their maximum are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 17
_ROUND_AND_REBIAS = np.uint32(0xFFF + (0x8000 << 13) + (1 << 32) - (112 << 23))
"""Half of the last bit kept, less one; the sign of a half; 15 instead of 127 as the exponent's zero."""

_ZERO = np.float32(0)
_LEAST = np.float32(np.finfo(np.float16).min)
_LEAST_NORMAL = np.float32(2.0**-14)


def row_blocks(rows: int, classes: int) -> Iterator[slice]:
    """Slices of rows small enough that a chain of operations stays in the cache."""
    step = max(1, _BLOCK_VALUES // max(1, classes))
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def below_maximum(logits_BC: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits `[B, C]` less their row's maximum, cut at -65504, the least of float16; and the maxima `[B]`."""
    row_max_B = logits_BC.max(axis=1) + _ZERO
    with np.errstate(over="ignore"):  # a range beyond float32 is cut with what is beyond float16
        # Added, not subtracted: so no zero is a negative one, whichever a maximum was found to be.
        # Row by row in memory, whatever the logits are: what is made of it is seen as one line of numbers.
        shifted_BC = np.add(logits_BC, (_ZERO - row_max_B)[:, None], order="C")
    if shifted_BC.size and shifted_BC.min() < _LEAST:
        np.maximum(shifted_BC, _LEAST, out=shifted_BC)
    return shifted_BC, row_max_B


def to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """`values`, any shape, rounded to the nearest float16, ties to even.

    Args:
        values: From -65504 to 0.
    """
    bits = values.view(np.uint32)
    half = bits >> np.uint32(13)
    half &= np.uint32(1)
    half += bits
    half += _ROUND_AND_REBIAS
    half >>= np.uint32(13)
    rounded = half.astype(np.uint16).view("<f2")
    subnormal = np.flatnonzero(values > -_LEAST_NORMAL)
    rounded.reshape(-1)[subnormal] = values.reshape(-1)[subnormal]
    return rounded


def from_half(values: NDArray[np.float16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """`values`, any shape, in float32.

    Args:
        values: Finite.
        out: Where to put them.
    """
    single = np.empty(values.shape, dtype=np.float32) if out is None else out
    # As signed integers, so that the sign's bit fills the exponent's; what is too much of it is cut off.
    bits: NDArray[Any] = single.view(np.int32)
    np.left_shift(values.view(np.int16), np.int32(13), out=bits, dtype=np.int32)
    bits &= np.int32(-0x70002000)
    single *= np.float32(2.0**112)
    return single
