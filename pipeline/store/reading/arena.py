"""Address space in which files are mapped side by side, so that one index reaches all of them.

Python's `mmap` lets the system choose the address of a map; the system's own call, by `ctypes`, can be told
one. It is told none but addresses inside a map that Python made and will undo.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = 1 << 21

_NONE = 0
_FIXED = 0x10  # MAP_FIXED: so on Linux and macOS
_NO_RESERVE = 0x4000 if hasattr(mmap, "MAP_POPULATE") else 0x40  # MAP_NORESERVE of Linux, of macOS


class CannotMap(OSError):
    """Files like this cannot be mapped here; they can still be read into memory."""


class Arena:
    """Slots of equal size, each for one file. What is outside of a mapped file must not be touched.

    Attributes:
        bytes: All of it.
        mapped: Slots with a file in them.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        """Set the addresses aside; that takes no memory.

        Args:
            slots: How many.
            slot_bytes: Bytes of each, a multiple of `PAGE`.

        Raises:
            CannotMap: There is no space for so many, or no such function on this system.
        """
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        try:
            memory = mmap.mmap(-1, max(1, slots) * slot_bytes, flags=flags, prot=_NONE)
        except (OSError, OverflowError, ValueError) as error:
            raise CannotMap(f"no address space for {slots} maps of {slot_bytes} bytes: {error}") from error
        self.bytes: NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8)
        self.mapped: set[int] = set()
        self._slot_bytes = slot_bytes

    def map(self, slot: int, descriptor: int, size: int) -> NDArray[np.uint8]:
        """Map the first `size` bytes of an open file, which has as many, into a slot; what was there is gone.

        Returns:
            Those bytes.

        Raises:
            CannotMap: The system refused.
        """
        if not 0 < size <= self._slot_bytes:
            raise CannotMap(f"{size} bytes do not go into a slot of {self._slot_bytes}")
        first = slot * self._slot_bytes
        mapped = self.bytes[first : first + size]
        address = mapped.ctypes.data
        found = _system_mmap()(address, size, mmap.PROT_READ, mmap.MAP_SHARED | _FIXED, descriptor, 0)
        if found != address:
            raise CannotMap(f"the system maps no such file: error {ctypes.get_errno()}")
        self.mapped.add(slot)
        return mapped


@functools.cache
def _system_mmap() -> Any:
    try:
        function = ctypes.CDLL(None, use_errno=True).mmap
    except (OSError, AttributeError, TypeError) as error:
        raise CannotMap(f"this system has no mmap: {error}") from error
    function.restype = ctypes.c_void_p
    function.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    return function
