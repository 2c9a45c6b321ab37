"""A column's plain shards as one array: their files mapped side by side, rows gathered by one index.

Rows drawn at random from a store are spread over all its units, and to read them unit by unit would cost a
dozen calls each. Here a batch costs a few, however many units there are: a shard is mapped into its slot when
it is first touched, and a chunk is verified before rows are taken from it (see `zarr_shard`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.layout import Shard
from softcask.pipeline.store.reading.arena import PAGE, Arena
from softcask.pipeline.store.reading.buffers import FileState, ObjectBuffers
from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import ObjectRecord
from softcask.storage_schemas.zarr_layout import ArrayLayout
from softcask.storage_schemas.zarr_shard import CRC_BYTES, overlapping, verified_chunks

_MOST_MAPPED = 8192
"""Shards of a column that are mapped at one time; a process may have 65,530 maps as a rule."""


_BLOCK_BYTES = 1 << 17
"""Of a chunk that is verified while it is copied: small enough to be still in the cache."""

_BLOCK_ROWS = 128
_LARGE_ROW = 256
"""Of rows larger than this, two words each are read for a whole block of rows before these are copied: their
ways through memory then overlap, where one copy would wait for each row. A third faster."""


_SMALL_ROW, _MOST_SMALL = 16, 64 << 20
"""Rows of so few bytes are copied out of their chunks when these are verified, up to so many bytes a column:
drawn at random, a row of four bytes costs a page of the map and a line of the cache each."""


class _Mapped:
    """Shards that are mapped, and chunks that rows may be taken from: both grow, neither ever shrinks."""

    def __init__(self, units: int, slot_bytes: int, chunks: int, row_bytes: int, step: int) -> None:
        self.arena = Arena(units, slot_bytes)
        self.row_at = overlapping(self.arena.bytes, row_bytes, step)
        self.word_at = self.arena.bytes.view(f"V{step}")
        self.ready_K = np.zeros(chunks, dtype=np.bool_)


class MappedColumn:
    """One column of a teacher's rows over a segment and view. Safe to share between threads.

    Rows are named by their positions in the segment, which the caller has checked. Reading raises

    - `CorruptObject`: a shard is gone or damaged; names it;
    - `StoreAccess`: the filesystem refused;
    - `IncompleteStore`: a unit is not committed;
    - `CannotMap`: the system or the filesystem maps no such files.
    """

    def __init__(
        self,
        layout: ArrayLayout,
        buffers: ObjectBuffers,
        shard_of: Callable[[int], tuple[Shard, ObjectRecord]],
        *,
        verify_always: bool,
    ) -> None:
        """Set address space aside; nothing is mapped yet.

        Args:
            layout: Of the column; not compressed.
            buffers: The store's objects, which lie in files.
            shard_of: Gives the shard of a unit by its place in the segment.
            verify_always: Verify a chunk whenever rows are taken from another one than the last; else once.

        Raises:
            CannotMap: There is no address space for so much.
        """
        grid = layout.grid(layout.unit_rows)
        self._column, self._grid = layout.column, grid
        self._buffers, self._shard_of, self._always = buffers, shard_of, verify_always
        chunked = grid.chunks * (grid.chunk_bytes + CRC_BYTES)
        self._slot_bytes = -(-(chunked + grid.tail_bytes) // PAGE) * PAGE
        self._slack = self._slot_bytes - chunked
        self._units = -(-layout.rows // layout.unit_rows)
        # Every row begins at a multiple of what divides rows, the checksums between chunks, and slots.
        self._step = math.gcd(grid.row_bytes, CRC_BYTES)
        self._touched = (
            np.array([0, grid.row_bytes // 2] if grid.row_bytes > _LARGE_ROW else []) // self._step
        )
        self._mapped = self._new()
        small_bytes = self._units * layout.unit_rows * grid.row_bytes
        is_small = grid.row_bytes <= _SMALL_ROW and small_bytes <= _MOST_SMALL and not verify_always
        self._copies_R = np.empty(small_bytes // grid.row_bytes, f"V{grid.row_bytes}") if is_small else None
        self._verified_K = np.zeros(self._units * grid.chunks, dtype=np.bool_)
        self._checksums_K = np.zeros(self._units * grid.chunks, dtype=np.uint32)
        self._files: dict[int, FileState] = {}
        self._lock = threading.Lock()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._grid.row_bytes

    def renew(self) -> None:
        """Go on in a forked process, where the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def row(self, position: int) -> NDArray[Any]:
        """One row `[1, *row_shape]`, where it lies."""
        chunk, mapped = position // self._grid.chunk_rows, self._mapped
        if not mapped.ready_K[chunk]:
            mapped = self._ready([chunk])
        first = self._first(position, chunk)
        row = mapped.arena.bytes[first : first + self._grid.row_bytes]
        return row.view(self._column.dtype).reshape(1, *self._column.row_shape)

    def put(
        self, positions_B: NDArray[np.int64], into: NDArray[np.void], at: slice | NDArray[np.int64]
    ) -> None:
        """Rows `[B]`, each as its bytes, into those places of an array of such rows that `at` names."""
        chunk_B, mapped = positions_B // self._grid.chunk_rows, self._mapped
        if not mapped.ready_K[chunk_B].all():
            mapped = self._ready(np.unique(chunk_B).tolist())
        if self._copies_R is not None:
            into[at] = self._copies_R[positions_B]
            return
        first_B = positions_B * (self._grid.row_bytes // self._step) + chunk_B * (CRC_BYTES // self._step)
        if self._units > 1:
            first_B += chunk_B // self._grid.chunks * (self._slack // self._step)
        block_rows = _BLOCK_ROWS if len(self._touched) else len(first_B)
        target, at_B = (into[at], slice(None)) if isinstance(at, slice) else (into, at)
        for start in range(0, len(first_B), block_rows):
            block = slice(start, start + block_rows)
            if len(self._touched):
                mapped.word_at[first_B[block, None] + self._touched]
            target[block if isinstance(at_B, slice) else at_B[block]] = mapped.row_at[first_B[block]]

    def copy(self, start: int, stop: int, into: NDArray[np.uint8]) -> None:
        """Rows from `start` to `stop` into bytes as long as they are."""
        size, rows = self._grid.row_bytes, self._grid.chunk_rows
        for chunk in range(start // rows, -(-stop // rows)):
            first, end, mapped = max(start, chunk * rows), min(stop, (chunk + 1) * rows), self._mapped
            target = into[(first - start) * size : (end - start) * size]
            if not mapped.ready_K[chunk]:
                if end - first == rows and self._copied(chunk, target):
                    continue
                mapped = self._ready([chunk])
            begin = self._first(first, chunk)
            target[:] = mapped.arena.bytes[begin : begin + (end - first) * size]

    def _new(self) -> _Mapped:
        chunks = self._units * self._grid.chunks
        return _Mapped(self._units, self._slot_bytes, chunks, self._grid.row_bytes, self._step)

    def _first(self, position: int, chunk: int) -> int:
        """Where a row begins."""
        slot = chunk // self._grid.chunks
        return position * self._grid.row_bytes + chunk * CRC_BYTES + slot * self._slack

    def _copied(self, chunk: int, target: NDArray[np.uint8]) -> bool:
        """Copy a whole chunk and verify the copy while it is in the cache; whether it is right."""
        mapped = self._ready([chunk], verify=False)
        begin, crc = self._first(chunk * self._grid.chunk_rows, chunk), 0
        for start in range(0, len(target), _BLOCK_BYTES):
            part = target[start : start + _BLOCK_BYTES]
            part[:] = mapped.arena.bytes[begin + start : begin + start + len(part)]
            crc = crc32c(part, crc)
        right = crc == int(self._checksums_K[chunk])
        if right:
            with self._lock:
                self._set_verified(chunk, target)
                self._mark(mapped, [chunk])
        return right

    def _ready(self, chunks: list[int], *, verify: bool = True) -> _Mapped:
        """Where all these chunks are mapped and verified; or where they are mapped."""
        by_unit: dict[int, list[int]] = {}
        for chunk in chunks:
            by_unit.setdefault(chunk // self._grid.chunks, []).append(chunk)
        with self._lock:
            mapped, standing = self._mapped, self._mapped.arena.mapped
            if standing and len(standing | by_unit.keys()) > _MOST_MAPPED:
                # Who reads from the old one at this moment keeps it until then.
                mapped = self._new()
            for unit, some in by_unit.items():
                self._make_ready(mapped, unit, some if verify else ())
            if verify:
                self._mark(mapped, chunks)
            self._mapped = mapped
        return mapped

    def _mark(self, mapped: _Mapped, chunks: list[int]) -> None:
        """Rows may be taken from these chunks."""
        if self._always:
            mapped.ready_K[:] = self._verified_K[:] = False
        mapped.ready_K[chunks[-1:] if self._always else chunks] = True

    def _make_ready(self, mapped: _Mapped, unit: int, chunks: Iterable[int]) -> None:
        try:
            self._map_and_verify(mapped, unit, chunks)
        except CorruptObject:
            # Of an object that lies elsewhere, the copy on this machine's disk may be what is damaged.
            if not self._buffers.discard(self._shard_of(unit)[1]):
                raise
            mapped.arena.mapped.discard(unit)
            self._map_and_verify(mapped, unit, chunks)

    def _map_and_verify(self, mapped: _Mapped, unit: int, chunks: Iterable[int]) -> None:
        if unit not in mapped.arena.mapped:
            self._map(mapped.arena, unit)
        for chunk in chunks:
            if not self._verified_K[chunk]:
                first = self._first(chunk * self._grid.chunk_rows, chunk)
                data = mapped.arena.bytes[first : first + self._grid.chunk_bytes]
                if crc32c(data) != int(self._checksums_K[chunk]):
                    key, number = self._shard_of(unit)[0].key, chunk % self._grid.chunks
                    raise CorruptObject(f"chunk {number} of {key} does not match its checksum; it is damaged")
                self._set_verified(chunk, data)

    def _set_verified(self, chunk: int, data: NDArray[np.uint8]) -> None:
        if self._copies_R is not None:
            first = chunk * self._grid.chunk_rows
            self._copies_R[first : first + self._grid.chunk_rows] = data.view(self._copies_R.dtype)
        self._verified_K[chunk] = True

    def _map(self, arena: Arena, unit: int) -> None:
        shard, record = self._shard_of(unit)
        grid = shard.layout.grid(shard.rows)
        with self._buffers.file(record) as (descriptor, state):
            if not grid.tail_bytes <= record.size <= self._slot_bytes:
                raise CorruptObject(
                    f"{shard.key} has {record.size} bytes, as no shard of {shard.rows} rows; it is damaged"
                )
            raw = arena.map(unit, descriptor, record.size)
        if self._files.get(unit) != state:
            first = unit * self._grid.chunks
            self._files.pop(unit, None)
            self._verified_K[first : first + self._grid.chunks] = False
            try:
                _, checksums = verified_chunks(raw, grid, shard.key, int(record.crc32c, 16))
            except CorruptObject:
                arena.mapped.discard(unit)
                raise
            self._checksums_K[first : first + grid.used] = checksums
            self._files[unit] = state
