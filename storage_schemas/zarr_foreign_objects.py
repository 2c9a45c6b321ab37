"""Objects of arrays that another tool wrote, looked at before a Zarr library is given them.

Such a library makes as much room as a packed chunk says that it needs. So each chunk is found as the library
will find it, and one that would unpack to anything else than a chunk's bytes is refused here. Where chunks
carry checksums, the seal of the shard is verified, without which its record says nothing of what it holds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.zarr_foreign import ForeignArray, constant_checksums
from softcask.storage_schemas.zarr_shard import ABSENT, CRC_BYTES

_BLOSC_HEADER = struct.Struct("<4B3I")
_GZIP = 16 + zlib.MAX_WBITS


def check_object(array: ForeignArray, data: NDArray[np.uint8], key: str) -> None:
    """Refuse an object that would unpack to more than it may, or that its record cannot vouch for.

    Args:
        array: What it is of.
        data: All its bytes, verified against its record.
        key: Its name, for messages.

    Raises:
        CorruptObject: A chunk lies outside of it, or would not unpack to what a chunk has.
        StoreError: Its record says nothing of its content.
    """
    checksums = []
    for number, chunk in _chunks(array, data, key):
        if array.chain.ends_in_checksum:
            checksums.append(chunk[-CRC_BYTES:].tobytes())
        _check_chunk(array, chunk, f"chunk {number} of {key}")
    if checksums:
        _check_seal(array, data, b"".join(checksums), key)


def _chunks(
    array: ForeignArray, data: NDArray[np.uint8], key: str
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Chunks that are there, by their places."""
    if array.index is None:
        yield 0, data
        return
    end = len(data) - _index_bytes(array)
    if end < 0:
        raise CorruptObject(f"{key} has {len(data)} bytes, fewer than the index of its chunks")
    first = end if array.index.at_end else 0
    raw = data[first : first + array.chunks * 16].tobytes()
    index = np.frombuffer(raw, dtype=">u8" if array.index.big_endian else "<u8").reshape(-1, 2)
    for number in np.flatnonzero((index != ABSENT).any(axis=1)).tolist():
        start, size = (int(value) for value in index[number])
        if start + size > len(data):
            raise CorruptObject(f"chunk {number} of {key} lies outside of it")
        yield number, data[start : start + size]


def _check_chunk(array: ForeignArray, chunk: NDArray[np.uint8], what: str) -> None:
    """As its codecs undo what was done to it, up to the one that unpacks; what follows has a known length."""
    checks = array.chain.packing
    while checks[-1:] == ("crc32c",):
        if len(chunk) < CRC_BYTES:
            raise CorruptObject(f"{what} has {len(chunk)} bytes, fewer than its checksum")
        chunk, checks = chunk[:-CRC_BYTES], checks[:-1]
    packer, expected = checks[-1:], array.chunk_bytes + CRC_BYTES * ("crc32c" in checks)
    found = _unpacked_bytes(packer[0], chunk, expected, what) if packer else len(chunk)
    if found != expected:
        raise CorruptObject(f"{what} has {found} bytes of numbers, expected {expected}")


def _unpacked_bytes(packer: str, chunk: NDArray[np.uint8], expected: int, what: str) -> int:
    """Bytes that it unpacks to, or more than expected; no more room than those is made."""
    if packer == "blosc":
        if len(chunk) < _BLOSC_HEADER.size:
            raise CorruptObject(f"{what} has {len(chunk)} bytes; a packed chunk has at least 16")
        _, _, _, _, unpacked, block, packed = _BLOSC_HEADER.unpack(chunk[: _BLOSC_HEADER.size].tobytes())
        if packed != len(chunk) or block > max(unpacked, 1):
            raise CorruptObject(f"{what} says that it has {packed} bytes; it has {len(chunk)}")
        return int(unpacked)
    if packer == "gzip":
        return _gunzipped_bytes(chunk, expected, what)
    try:
        return len(pa.Codec("zstd").decompress(pa.py_buffer(chunk), decompressed_size=expected))
    except (OSError, pa.ArrowException) as error:
        raise CorruptObject(f"{what} does not unpack to {expected} bytes: {error}") from error


def _gunzipped_bytes(chunk: NDArray[np.uint8], expected: int, what: str) -> int:
    stream = zlib.decompressobj(_GZIP)
    try:
        found = len(stream.decompress(chunk.data, expected + 1))
    except zlib.error as error:
        raise CorruptObject(f"{what} does not unpack: {error}") from error
    if found <= expected and not (stream.eof and not stream.unused_data):
        raise CorruptObject(f"{what} is not one gzip stream from its first byte to its last")
    return found


def _check_seal(array: ForeignArray, data: NDArray[np.uint8], checksums: bytes, key: str) -> None:
    end = len(data) - (_index_bytes(array) if array.index is None or array.index.at_end else 0)
    seal = data[max(end - CRC_BYTES, 0) : end].tobytes()
    if seal != crc32c(checksums).to_bytes(CRC_BYTES, "little"):
        raise constant_checksums(key, "chunks")


def _index_bytes(array: ForeignArray) -> int:
    if array.index is None:
        return 0
    return array.chunks * 16 + (CRC_BYTES if array.index.checked else 0)
