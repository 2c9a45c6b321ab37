"""Gather rows of teachers' columns from the units that hold them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.bounded import Bounded
from softcask.pipeline.store.runs import Run
from softcask.pipeline.store.unit_index import UnitKey, UnitObjects
from softcask.pipeline.store.units import ColumnRows, OpenUnit, UnitOpener
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject

T = TypeVar("T")

_MOST_MAPS = 512
"""Files that are mapped at one time: each takes a descriptor, of which a process has 1,024 as a rule."""


class Gatherer:
    """Reads rows out of units, and keeps units open. Safe to share between threads.

    It holds as much as `cache_bytes` of what had to be unpacked, decoded or fetched into memory (and at least
    the unit that is read), and 512 maps of files, whose pages are the system's to drop.
    """

    def __init__(
        self, opener: UnitOpener, objects_of: Callable[[UnitKey], UnitObjects], *, cache_bytes: int
    ) -> None:
        """Open units by `opener`, of the objects that `objects_of` names."""
        self._opener, self._objects_of, self._cache_bytes = opener, objects_of, cache_bytes
        self.renew()

    def renew(self) -> None:
        """Start anew in a forked process, where a lock may be held by a thread that is not there."""
        self._kept: Bounded[UnitKey, OpenUnit] = Bounded(self._cache_bytes, _MOST_MAPS)

    def columns(
        self, teacher: str, view: int, runs: Sequence[Run], columns: Sequence[Column], rows: int
    ) -> dict[str, NDArray[Any]]:
        """Columns `[B, *row_shape]` of one teacher's rows.

        Args:
            teacher: Whose.
            view: Number of the view.
            runs: Where the B rows lie.
            columns: What to read.
            rows: B.

        Raises:
            CorruptObject: An object is gone or damaged; names it.
            StoreAccess: The filesystem refused.
            IncompleteStore: A unit is not committed.
        """
        if len(runs) == 1 and (run := runs[0]).at == slice(0, rows):
            names = [column.name for column in columns]
            return self._with(_key(teacher, view, run), functools.partial(_taken, run=run, names=names))
        out = {column.name: np.empty((rows, *column.row_shape), column.dtype) for column in columns}
        self.fill(teacher, view, runs, out)
        return out

    def fill(self, teacher: str, view: int, runs: Sequence[Run], out: Mapping[str, NDArray[Any]]) -> None:
        """Columns of one teacher's rows into contiguous arrays `[B, *row_shape]` by name; see `columns`."""
        for run in runs:
            self._with(_key(teacher, view, run), functools.partial(_put, run=run, out=out))

    def _with(self, key: UnitKey, use: Callable[[OpenUnit], T]) -> T:
        try:
            return self._used(key, use)
        except CorruptObject:
            # A copy of a remote object may have been damaged on this machine's disk.
            if not self._opener.discard([record for _, record in self._objects_of(key)]):
                raise
            self._kept.drop(key)
        return self._used(key, use)

    def _used(self, key: UnitKey, use: Callable[[OpenUnit], T]) -> T:
        unit = self._kept.get(key)
        if unit is None:
            unit = self._opener.open(self._objects_of(key))
        result = use(unit)
        self._kept.keep(key, unit)
        return result


def _key(teacher: str, view: int, run: Run) -> UnitKey:
    return teacher, run.segment, view, run.index


def _taken(unit: OpenUnit, run: Run, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    return {name: _rows(unit.columns[name], run.places) for name in names}


def _rows(rows: ColumnRows, places: slice | NDArray[np.int64]) -> NDArray[Any]:
    if isinstance(places, slice):
        if places.stop - places.start == 1:
            return rows.row(places.start)
        places = np.arange(places.start, places.stop)
    return rows.take(places)


def _put(unit: OpenUnit, run: Run, out: Mapping[str, NDArray[Any]]) -> None:
    for name, into in out.items():
        rows = unit.columns[name]
        if isinstance(run.places, slice):
            rows.copy(run.places.start, run.places.stop, into[run.at])
        elif isinstance(run.at, slice):
            into[run.at] = rows.take(run.places)
        else:
            rows.put(run.places, into, run.at)
