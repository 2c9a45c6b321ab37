"""The bytes of one chunk of a shard: as they are, or packed by Blosc.

Shuffled by byte and compressed by zstd at its fastest, in one block a chunk: half precision logits shrink by
a third, where Blosc's own choice of blocks hides half of that, and bit-wise shuffling or lz4 gain nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject

MOST_GROWTH = 16
"""Bytes that a packed chunk may be longer than a plain one: Blosc's header before bytes left as they are."""

_HEADER = struct.Struct("<4B3I")
_FORMAT_VERSION = 2
_ZSTD, _AS_IT_IS = 4, 0x2


def blosc_configuration(itemsize: int, chunk_bytes: int) -> dict[str, Any]:
    """The configuration of Zarr's codec `blosc`."""
    return {
        "cname": "zstd",
        "clevel": 1,
        "shuffle": "shuffle" if itemsize > 1 else "noshuffle",
        "typesize": itemsize,
        "blocksize": chunk_bytes,
    }


def pack(chunk: NDArray[np.uint8], itemsize: int) -> bytes:
    """One chunk of values of `itemsize` bytes, packed."""
    packed: bytes = _blosc().compress(chunk, b"zstd", 1, int(itemsize > 1), chunk.nbytes, itemsize)
    return packed


def unpack(data: NDArray[np.uint8], itemsize: int, into: NDArray[np.uint8], what: str) -> None:
    """Unpack one chunk.

    Args:
        data: What `pack` gave.
        itemsize: Bytes of one value.
        into: Where it goes; as long as the chunk is.
        what: Name of the chunk, for messages.

    Raises:
        CorruptObject: Its header says anything else than this chunk's, or it does not unpack. Nothing is
            allocated by what it says.
    """
    if len(data) < _HEADER.size:
        raise CorruptObject(f"{what} has {len(data)} bytes; a packed chunk has at least {_HEADER.size}")
    version, _, flags, typesize, unpacked, block, packed = _HEADER.unpack(data[: _HEADER.size].tobytes())
    known = version == _FORMAT_VERSION and (flags >> 5 == _ZSTD or flags & _AS_IT_IS)
    if not known or (typesize, unpacked, packed) != (itemsize, len(into), len(data)) or block > len(into):
        raise CorruptObject(
            f"{what} says that it holds {unpacked} bytes of {typesize} a value, packed into {packed}; "
            f"expected {len(into)} of {itemsize} in {len(data)}, as Blosc packs them by zstd"
        )
    try:
        _blosc().decompress(data, into)
    except (RuntimeError, ValueError) as error:
        raise CorruptObject(f"{what} does not unpack: {error}") from error


def _blosc() -> Any:
    from numcodecs import blosc

    # As zarr-python does: Blosc's own threads are one pool a process, shared by all callers and not by forks.
    blosc.use_threads = False
    return blosc
