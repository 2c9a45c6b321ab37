"""Gather rows of teachers' columns: by one index where their files are mapped, else unit by unit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.layout import Shard
from softcask.pipeline.store.reading.arena import CannotMap
from softcask.pipeline.store.reading.bounded import Bounded
from softcask.pipeline.store.reading.buffers import ObjectBuffers
from softcask.pipeline.store.reading.mapped import MappedColumn
from softcask.pipeline.store.reading.selection import Run, by_unit
from softcask.pipeline.store.reading.unit_index import UnitIndex, UnitKey
from softcask.pipeline.store.reading.units import ColumnRows, OpenUnit, UnitOpener
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import ObjectRecord
from softcask.storage_schemas.zarr_layout import ArrayLayout

T = TypeVar("T")

Place = tuple[str, int, int]
"""Teacher, view, number of the segment."""
Selected = Sequence[tuple[int, Run]]
"""Rows by the number of their segment."""

_MOST_MAPS = 512
"""Units that are mapped one by one at a time: each takes a descriptor, of which a process has few."""


class Gatherer:
    """Reads rows of columns. Safe to share between threads.

    Of what had to be unpacked, decoded or fetched into memory it holds `cache_bytes`, and at least the unit
    that is read. Maps of files beside it are address space, whose pages are the system's to drop.
    """

    def __init__(
        self, units: UnitIndex, buffers: ObjectBuffers, *, cache_bytes: int, verify_always: bool
    ) -> None:
        """Nothing is opened yet; see `open_store` for the arguments."""
        self._units, self._buffers, self._always = units, buffers, verify_always
        self._opener = UnitOpener(buffers, verify_always=verify_always)
        self._cache_bytes = cache_bytes
        self._mapped: dict[tuple[Place, str], MappedColumn] = {}
        self._cannot_map = not buffers.in_files
        self.renew()

    def renew(self) -> None:
        """Start anew in a forked process, where a lock may be held by a thread that is not there."""
        self._kept: Bounded[UnitKey, OpenUnit] = Bounded(self._cache_bytes, _MOST_MAPS)
        for column in self._mapped.values():
            column.renew()

    def columns(
        self, teacher: str, view: int, selected: Selected, columns: Sequence[Column], rows: int
    ) -> dict[str, NDArray[Any]]:
        """Columns `[B, *row_shape]` of one teacher's rows, by name; not to be written to.

        Args:
            teacher: Whose.
            view: Number of the view.
            selected: Where the B rows lie.
            columns: What to read.
            rows: B.

        Raises:
            CorruptObject: An object is gone or damaged; names it.
            StoreAccess: The filesystem refused.
            IncompleteStore: A unit is not committed.
        """
        if rows == 1 and (found := self._one(teacher, view, *selected[0], columns)) is not None:
            return found
        out = {column.name: np.empty((rows, *column.row_shape), column.dtype) for column in columns}
        self.fill(teacher, view, selected, columns, out)
        return out

    def fill(
        self,
        teacher: str,
        view: int,
        selected: Selected,
        columns: Sequence[Column],
        out: Mapping[str, NDArray[Any]],
    ) -> None:
        """Columns of one teacher's rows into contiguous arrays `[B, *row_shape]` by name; see `columns`."""
        for segment, run in selected:
            place = teacher, view, segment
            try:
                layouts = {} if self._cannot_map else self._units.plain_layouts(teacher, segment, view)
                for column in columns:
                    if (layout := layouts.get(column.name)) is not None:
                        _put_mapped(self._mapped_column(place, layout), run, out[column.name])
                if layouts:
                    continue
            except CannotMap:
                self._cannot_map = True
            for index, part in by_unit(run, self._units.unit_rows(segment)):
                self._with((teacher, segment, view, index), functools.partial(_put, run=part, out=out))

    def _one(
        self, teacher: str, view: int, segment: int, run: Run, columns: Sequence[Column]
    ) -> dict[str, NDArray[Any]] | None:
        """Columns `[1, *row_shape]` of one row, where it is mapped; None where it is not."""
        if self._cannot_map or not isinstance(run.places, slice):
            return None
        layouts = self._units.plain_layouts(teacher, segment, view)
        if not layouts:
            return None
        place, position = (teacher, view, segment), run.places.start
        try:
            return {
                column.name: self._mapped_column(place, layouts[column.name]).row(position)
                for column in columns
            }
        except CannotMap:
            self._cannot_map = True
            return None

    def _mapped_column(self, place: Place, layout: ArrayLayout) -> MappedColumn:
        key = place, layout.column.name
        column = self._mapped.get(key)
        if column is None:
            shard_of = functools.partial(self._shard_of, place, layout.column.name)
            try:
                fresh = MappedColumn(layout, self._buffers, shard_of, verify_always=self._always)
            except MemoryError as error:
                raise CannotMap(f"no memory to keep account of the chunks of {key}") from error
            column = self._mapped.setdefault(key, fresh)
        return column

    def _shard_of(self, place: Place, column: str, index: int) -> tuple[Shard, ObjectRecord]:
        teacher, view, segment = place
        for part, (record, *_) in self._units.objects((teacher, segment, view, index)):
            if isinstance(part, Shard) and part.layout.column.name == column:
                return part, record
        raise CorruptObject(f"unit {index} of teacher {teacher!r} has no shard of {column!r}")

    def _with(self, key: UnitKey, use: Callable[[OpenUnit], T]) -> T:
        try:
            return self._used(key, use)
        except CorruptObject:
            # Of an object that lies elsewhere, the copy on this machine's disk may be what is damaged.
            if not self._opener.discard([each for _, of in self._units.objects(key) for each in of]):
                raise
            self._kept.drop(key)
        return self._used(key, use)

    def _used(self, key: UnitKey, use: Callable[[OpenUnit], T]) -> T:
        unit = self._kept.get(key)
        if unit is None:
            unit = self._opener.open(self._units.objects(key))
        result = use(unit)
        self._kept.keep(key, unit)
        return result


def _put_mapped(column: MappedColumn, run: Run, out: NDArray[Any]) -> None:
    if isinstance(run.places, slice):
        column.copy(run.places.start, run.places.stop, out[run.at].reshape(-1).view(np.uint8))
    else:
        column.put(run.places, out.reshape(-1).view(f"V{column.row_bytes}"), run.at)


def _put(unit: OpenUnit, run: Run, out: Mapping[str, NDArray[Any]]) -> None:
    for name, into in out.items():
        rows: ColumnRows = unit.columns[name]
        if isinstance(run.places, slice):
            rows.copy(run.places.start, run.places.stop, into[run.at])
        elif isinstance(run.at, slice):
            into[run.at] = rows.take(run.places)
        else:
            rows.put(run.places, into, run.at)
