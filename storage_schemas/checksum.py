"""CRC-32C, the checksum of every object: what Zarr's chunks carry, and fast enough to be checked always."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import google_crc32c
import numpy as np
from numpy.typing import NDArray

_Tables = tuple[list[int], list[int], list[int], list[int]]


def crc32c(data: bytes | NDArray[np.uint8], before: int = 0) -> int:
    """CRC-32C (Castagnoli) of bytes, or of a contiguous array of bytes.

    Args:
        data: The bytes.
        before: CRC-32C of bytes that stand before them and count too.
    """
    return int(google_crc32c.extend(before, data))


def crc32c_hex(data: bytes | NDArray[np.uint8]) -> str:
    """CRC-32C as eight hexadecimal digits, the way manifests write it."""
    return f"{crc32c(data):08x}"


def crc32c_joined(pieces: Iterable[tuple[int, int]]) -> int:
    """CRC-32C of pieces of bytes one after the other, without the bytes.

    Args:
        pieces: CRC-32C and length of each. Appending n bytes multiplies the checksum before by x^8n, modulo
            the polynomial, and adds their own (as zlib's `crc32_combine` does).
    """
    joined = 0
    for crc, size in pieces:
        power = 0
        while size:
            if size & 1:
                joined = _shifted(_zeros(power), joined)
            size >>= 1
            power += 1
        joined ^= crc
    return joined


def _shifted(tables: _Tables, crc: int) -> int:
    first, second, third, fourth = tables
    return first[crc & 255] ^ second[crc >> 8 & 255] ^ third[crc >> 16 & 255] ^ fourth[crc >> 24]


@functools.cache
def _zeros(power: int) -> _Tables:
    """What 2**power zero bytes make of a checksum, by each of its four bytes."""
    if power == 0:
        low = [crc32c(bytes([byte ^ 0xFF])) ^ 0xFF000000 for byte in range(256)]
        second, third, fourth = ([byte << place for byte in range(256)] for place in (0, 8, 16))
        return low, second, third, fourth
    half = _zeros(power - 1)
    first, second, third, fourth = (
        [_shifted(half, _shifted(half, byte << place)) for byte in range(256)] for place in (0, 8, 16, 24)
    )
    return first, second, third, fourth
