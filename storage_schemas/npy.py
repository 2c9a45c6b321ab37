"""Arrays as `.npy` files: what a codec keeps once, readable by anything that reads NumPy's format.

Read without trust: never pickled, and nothing is allocated beyond the bytes that are there.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject

_MOST_AXES = 8


def to_bytes(array: NDArray[Any]) -> bytes:
    """The array, C-contiguous and little-endian, as one `.npy` file."""
    sink = io.BytesIO()
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    np.lib.format.write_array(sink, little, version=(1, 0), allow_pickle=False)
    return sink.getvalue()


def from_bytes(data: bytes, key: str) -> NDArray[Any]:
    """The array in `data`; read-only, it shares the memory.

    Args:
        data: A whole `.npy` file.
        key: Name of the object, for messages.

    Raises:
        CorruptObject: Not such a file, holds anything but numbers, or not as many bytes as it says.
    """
    stream = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise CorruptObject(f"{key} is not a .npy file of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except CorruptObject:
        raise
    except Exception as error:  # the header is an expression, and Python's parser raises what it likes
        raise CorruptObject(f"{key} is not a readable .npy file: {error}") from error
    first, size = stream.tell(), dtype.itemsize
    for length in shape:
        size *= length
    plain = dtype.kind in "biuf" and not fortran and len(shape) <= _MOST_AXES
    if not plain or any(length < 0 for length in shape) or size != len(data) - first:
        raise CorruptObject(
            f"{key} says that it holds {dtype} of shape {shape}, {size} bytes; found {len(data) - first}"
        )
    return np.frombuffer(data, dtype=dtype, offset=first).reshape(shape)
