"""One array as it lies in a file: what a header told, and how to get at the elements behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.files import file_facts, local_path, open_bytes
from softcask.storage_schemas.errors import TransferSetError

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """Where an array's bytes start, and what they are.

    Attributes:
        url: Local path or fsspec URL of the file.
        dtype: Element type as stored, byte order included.
        shape: Its first axis counts rows.
        offset: Bytes before the first element, in the file or its unpacked member.
        order: C, or F where the first axis varies fastest.
        gzipped: The whole file is gzipped.
        member: The array is this member of a zip archive.
    """

    url: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"] = "C"
    gzipped: bool = False
    member: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def place(self) -> str:
        """File and member, for messages."""
        return self.url if self.member is None else f"{self.url}:{self.member}"

    def check_size(self) -> None:
        """Compare the header with the file's size, where that is known without unpacking it.

        Raises:
            TransferSetError: The file is shorter or longer than its header says.
        """
        size = file_facts(self.url)["bytes"]
        if not self.gzipped and self.member is None and size is not None:
            self._check(size - self.offset)

    def load(self) -> NDArray[Any]:
        """All elements, read-only: mapped from a plain local file, otherwise read into memory.

        Raises:
            TransferSetError: The file is gone, damaged, or shorter or longer than its header says.
        """
        path = local_path(self.url)
        if path is None or self.gzipped or self.member is not None or not self.nbytes:
            return self._read()
        self.check_size()
        mapped = np.memmap(path, self.dtype, "r", offset=self.offset, shape=self.shape, order=self.order)
        return mapped.view(np.ndarray)

    def _read(self) -> NDArray[Any]:
        with open_bytes(self.url, gzipped=self.gzipped, member=self.member) as stream:
            stream.read(self.offset)
            data = _read_up_to(stream, self.nbytes + 1)
        self._check(len(data))
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)
        array.flags.writeable = False
        return array

    def _check(self, found: int) -> None:
        if found == self.nbytes:
            return
        said = f"its header promises {self.nbytes} for {self.dtype.name} {list(self.shape)}"
        if found < self.nbytes:
            message = f"truncated: {max(found, 0)} bytes of elements, {said}; fetch or write it again"
        else:
            message = f"bytes left over after its last element: {said}; fetch or write it again"
        raise TransferSetError(f"{self.place}: {message}")


def _read_up_to(stream: IO[bytes], size: int) -> bytearray:
    # In chunks: a damaged header may promise more than fits into memory, and is to be found out before that.
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(_CHUNK_BYTES, size - len(data)))):
        data += chunk
    return data
