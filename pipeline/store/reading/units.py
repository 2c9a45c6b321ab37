"""Units as they are read: each column of one, open, with its rows wherever they lie.

Columns of a Zarr shard are read from a map of its file, or from memory; a Parquet part, and what another tool
wrote, is decoded as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.store.foreign_arrays import ForeignUnit
from softcask.pipeline.store.layout import Part, Shard, UnitObject
from softcask.pipeline.store.reading.buffers import FileState, ObjectBuffer, ObjectBuffers
from softcask.pipeline.store.reading.foreign import decode_foreign
from softcask.storage_schemas.checksum import crc32c_hex
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import ObjectRecord
from softcask.storage_schemas.zarr_shard import OpenShard

_OBJECT_BYTES = 64
"""What Python takes for a string of bytes and the reference to it, beside the bytes."""


class ColumnRows(Protocol):
    """The rows of a unit in one column, by their places in the unit."""

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it holds now."""

    def take(self, places_B: NDArray[np.int64]) -> NDArray[Any]:
        """Rows `[B, *row_shape]`."""

    def put(self, places_B: NDArray[np.int64], into: NDArray[Any], at_B: NDArray[np.int64]) -> None:
        """Rows into those of a contiguous array that `at_B` names."""

    def copy(self, start: int, stop: int, into: NDArray[Any]) -> None:
        """Rows from `start` to `stop` into a contiguous array of as many."""


class ShardRows:
    """A column in a shard; raises `CorruptObject` where a chunk is damaged."""

    def __init__(self, shard: OpenShard, column: Column, *, in_memory: int) -> None:
        """Read `shard`, of which `in_memory` bytes are not mapped from a file."""
        self._shard, self._dtype, self._shape = shard, column.dtype, column.row_shape
        self._row = np.dtype(f"V{column.row_bytes}")
        self._in_memory = in_memory

    @property
    def held_bytes(self) -> int:
        """See `ColumnRows`."""
        return self._in_memory + self._shard.held_bytes

    def take(self, places_B: NDArray[np.int64]) -> NDArray[Any]:
        """See `ColumnRows`."""
        return self._shard.take(places_B).view(self._dtype).reshape(len(places_B), *self._shape)

    def put(self, places_B: NDArray[np.int64], into: NDArray[Any], at_B: NDArray[np.int64]) -> None:
        """See `ColumnRows`."""
        into.reshape(-1).view(self._row)[at_B] = self._shard.take(places_B)

    def copy(self, start: int, stop: int, into: NDArray[Any]) -> None:
        """See `ColumnRows`."""
        self._shard.copy(start, stop, into.reshape(-1).view(np.uint8))


class DecodedRows:
    """A column that is decoded already."""

    def __init__(self, values_n: NDArray[Any]) -> None:
        """Read `values_n`, `[n, *row_shape]`."""
        self._values_n = values_n
        self.held_bytes = values_n.nbytes
        if values_n.dtype.hasobject:
            self.held_bytes += sum(map(len, values_n.flat)) + _OBJECT_BYTES * values_n.size

    def take(self, places_B: NDArray[np.int64]) -> NDArray[Any]:
        """See `ColumnRows`."""
        return self._values_n.take(places_B, axis=0)

    def put(self, places_B: NDArray[np.int64], into: NDArray[Any], at_B: NDArray[np.int64]) -> None:
        """See `ColumnRows`."""
        into[at_B] = self._values_n[places_B]

    def copy(self, start: int, stop: int, into: NDArray[Any]) -> None:
        """See `ColumnRows`."""
        into[...] = self._values_n[start:stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUnit:
    """A unit's columns, open.

    Attributes:
        columns: By name.
        maps: Files that are mapped.
    """

    columns: Mapping[str, ColumnRows]
    maps: int

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that they hold now."""
        return sum(rows.held_bytes for rows in self.columns.values())


class UnitOpener:
    """Opens objects of units, and remembers which chunks of their files need no other look."""

    def __init__(self, buffers: ObjectBuffers, *, verify_always: bool) -> None:
        """Nothing is opened yet.

        Args:
            buffers: The store's objects.
            verify_always: Whether a chunk's checksum is verified each time that reading comes to it, rather
                than once.
        """
        self._buffers, self._always = buffers, verify_always
        self._verified: dict[str, tuple[FileState, bytearray]] = {}

    def open(self, objects: Sequence[tuple[UnitObject | ForeignUnit, Sequence[ObjectRecord]]]) -> OpenUnit:
        """The unit that consists of these objects, each with its record (or, of a foreign array, those).

        Raises:
            CorruptObject: One of them is gone or damaged; names it.
            StoreError: It was written by another tool, so that its records cannot vouch for it.
            StoreAccess: The filesystem refused.
        """
        columns: dict[str, ColumnRows] = {}
        maps = 0
        for part, records in objects:
            if isinstance(part, ForeignUnit):
                read = {record.key: self._whole(record) for record in records}
                columns[part.array.column.name] = DecodedRows(decode_foreign(part, read))
                continue
            (record,) = records
            buffer = self._buffers.open(record)
            if isinstance(part, Shard):
                maps += buffer.file is not None
                columns[part.layout.column.name] = self._shard(part, record, buffer.raw, buffer.file)
            elif isinstance(part, Part):
                decoded = part.decode(pa.py_buffer(_checked(record, buffer)))
                columns |= {name: DecodedRows(values) for name, values in decoded.items()}
        return OpenUnit(columns=columns, maps=maps)

    def _whole(self, record: ObjectRecord) -> NDArray[np.uint8]:
        return _checked(record, self._buffers.open(record))

    def discard(self, records: list[ObjectRecord]) -> bool:
        """Forget copies on this machine of objects that lie elsewhere; False where there are none."""
        return any([self._buffers.discard(record) for record in records])

    def _shard(
        self, part: Shard, record: ObjectRecord, raw: NDArray[np.uint8], file: FileState | None
    ) -> ShardRows:
        known = self._verified.get(part.key)
        shard = OpenShard(
            raw,
            part.layout.grid(part.rows),
            part.key,
            committed=int(record.crc32c, 16),
            verified=known[1] if known and known[0] == file and not self._always else None,
            always=self._always,
        )
        if file is not None:
            self._verified[part.key] = file, shard.verified
        return ShardRows(shard, part.layout.column, in_memory=0 if file is not None else raw.nbytes)


def _checked(record: ObjectRecord, buffer: ObjectBuffer) -> NDArray[np.uint8]:
    """All bytes of an object, which are those that were committed."""
    if buffer.file is not None and (found := crc32c_hex(buffer.raw)) != record.crc32c:
        raise CorruptObject(
            f"{record.key} has CRC-32C {found}, committed with {record.crc32c}; it is damaged"
        )
    return buffer.raw
