"""CRC-32C, the checksum of every object: what Zarr's chunks carry, and fast enough to be checked always."""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """CRC-32C (Castagnoli) of bytes, or of a contiguous array of bytes."""
    return int(google_crc32c.value(data))


def crc32c_hex(data: bytes) -> str:
    """CRC-32C as eight hexadecimal digits, the way manifests write it."""
    return f"{crc32c(data):08x}"
