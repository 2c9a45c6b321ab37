"""What is to be done: units, and the tasks that group them. Pure: no file is read or written here.

A unit is (teacher, segment, view, range of rows). Units belong to the data: neither the number of workers
nor which teachers run together changes one. A task is the units of several teachers over the same rows, so
that these are read once; a resumed run has smaller tasks over the same units.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, product
from typing import overload

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.keys import unit_name
from softcask.storage_schemas.manifest import SegmentManifest
from softcask.storage_schemas.unit_codes import UnitCodes, first_code, indexes_in

MOST_UNIT_ROWS = 32_768
FEWEST_UNITS = 64
SHARD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Units of co-resident teachers over the same rows.

    Attributes:
        group: Which pool of workers runs it.
        segment: Name of the segment.
        view: Number of the view.
        index: Place of the units in the segment.
        start: First row.
        stop: End of the rows.
        teachers: Whose units.
    """

    group: str
    segment: str
    view: int
    index: int
    start: int
    stop: int
    teachers: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Name of its units within each teacher."""
        return unit_name(self.segment, self.view, self.index)

    @property
    def rows(self) -> int:
        """Rows it covers."""
        return self.stop - self.start


def choose_unit_rows(*, rows: int, row_bytes: int, batch_size: int) -> int:
    """Rows a unit when the user does not say: a whole number of batches, from the data alone.

    At most 32,768 rows or 64 MiB a shard, and small sets still fall into some 64 units, so that workers share
    them and a crash costs little.
    """
    most = min(MOST_UNIT_ROWS, SHARD_BYTES // row_bytes)
    wanted = min(most, -(-rows // FEWEST_UNITS))
    batches = max(1, min(-(-wanted // batch_size), most // batch_size))
    return batches * batch_size


class Tasks(Sequence[Task]):
    """Tasks by view, in the order of rows, each made when it is looked at: a million of them take 12 MB."""

    def __init__(
        self,
        segments: Sequence[SegmentManifest],
        views: Sequence[int],
        kinds: Sequence[tuple[str, tuple[str, ...]]],
        places_T: NDArray[np.int64],
        kinds_T: NDArray[np.int32],
    ) -> None:
        """Tasks of a plan; see `plan_tasks`.

        Args:
            segments: What is labelled.
            views: Numbers of the views.
            kinds: (group, teachers) that tasks are of.
            places_T: Each task's unit among the units of all segments, view after view, not falling.
            kinds_T: Each task's place in `kinds`.
        """
        self._segments, self._views, self._kinds = segments, views, kinds
        self._places_T, self._kinds_T = places_T, kinds_T
        self._firsts = list(accumulate((segment.units for segment in segments[:-1]), initial=0))
        self._units = max(1, sum(segment.units for segment in segments))

    def __len__(self) -> int:
        """Tasks."""
        return len(self._places_T)

    @overload
    def __getitem__(self, which: int) -> Task: ...

    @overload
    def __getitem__(self, which: slice) -> Tasks: ...

    def __getitem__(self, which: int | slice) -> Task | Tasks:
        """One task, or some of them as yet unmade."""
        if isinstance(which, slice):
            return self._some(which)
        view, place = divmod(int(self._places_T[which]), self._units)
        number = bisect_right(self._firsts, place) - 1
        segment, index = self._segments[number], place - self._firsts[number]
        start, stop = segment.unit_range(index)
        group, teachers = self._kinds[self._kinds_T[which]]
        return Task(
            group=group,
            segment=segment.segment,
            view=self._views[view],
            index=index,
            start=start,
            stop=stop,
            teachers=teachers,
        )

    @property
    def teachers(self) -> frozenset[str]:
        """Teachers that have something to do."""
        return frozenset(name for kind in np.unique(self._kinds_T) for name in self._kinds[kind][1])

    @property
    def views(self) -> frozenset[int]:
        """Numbers of the views in which there is something to do."""
        return frozenset(self._views[place] for place in np.unique(self._places_T // self._units).tolist())

    @property
    def logit_rows(self) -> int:
        """Rows that are to be labelled, each as often as there are teachers for it."""
        times_K = np.array([len(teachers) for _, teachers in self._kinds], dtype=np.int64)
        return int((self._rows_T() * times_K[self._kinds_T]).sum())

    def rows_of(self, teacher: str) -> int:
        """Rows that one teacher is to label."""
        return int(self._rows_T()[self._are(lambda _, teachers: teacher in teachers)].sum())

    def of_group(self, group: str) -> Tasks:
        """Those of one pool of workers."""
        return self._some(self._are(lambda name, _: name == group))

    def _some(self, which: slice | NDArray[np.bool_]) -> Tasks:
        return Tasks(self._segments, self._views, self._kinds, self._places_T[which], self._kinds_T[which])

    def _are(self, kind: Callable[[str, tuple[str, ...]], bool]) -> NDArray[np.bool_]:
        are_K = np.array([kind(*each) for each in self._kinds], dtype=np.bool_)
        return are_K[self._kinds_T]

    def _rows_T(self) -> NDArray[np.int64]:
        places_T = self._places_T % self._units
        numbers_T = np.searchsorted(self._firsts, places_T, side="right") - 1
        firsts_T, unit_rows_T, rows_T = (
            np.array(values, dtype=np.int64)[numbers_T]
            for values in (
                self._firsts,
                [segment.unit_rows for segment in self._segments],
                [segment.rows for segment in self._segments],
            )
        )
        starts_T = (places_T - firsts_T) * unit_rows_T
        return np.minimum(unit_rows_T, rows_T - starts_T)


def plan_tasks(
    segments: Sequence[SegmentManifest],
    groups: Mapping[str, Sequence[str]],
    committed: Mapping[str, UnitCodes],
    *,
    views: Sequence[int] = (0,),
) -> Tasks:
    """Units minus committed, as tasks view by view, in the order of the rows, and of groups within a unit.

    Args:
        segments: What is to be labelled.
        groups: Name of a group -> its teachers.
        committed: Teacher -> codes of its committed units; units of other segments and views do not count.
        views: Numbers of the views: first all rows as they are, so that a run that ends early has these
            whole.
    """
    kinds: dict[tuple[str, tuple[str, ...]], int] = {}
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    of_kinds: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    first = 0
    for view, segment in product(views, segments):
        for group, teachers in groups.items():
            missing_MU = _missing(segment, teachers, committed, view)
            index_T = np.flatnonzero(missing_MU.any(axis=0))
            columns, which_T = _distinct(missing_MU[:, index_T])
            numbers_K = [
                kinds.setdefault((group, tuple(compress(teachers, column))), len(kinds)) for column in columns
            ]
            places.append(first + index_T)
            of_kinds.append(np.array(numbers_K, dtype=np.int32)[which_T])
        first += segment.units
    places_T = np.concatenate(places)
    order_T = np.argsort(places_T, kind="stable")
    return Tasks(segments, views, list(kinds), places_T[order_T], np.concatenate(of_kinds)[order_T])


def _missing(
    segment: SegmentManifest, teachers: Sequence[str], committed: Mapping[str, UnitCodes], view: int
) -> NDArray[np.bool_]:
    """`[M, U]`: whether a teacher has a unit of the segment still to do."""
    missing_MU = np.ones((len(teachers), segment.units), dtype=np.bool_)
    for missing_U, name in zip(missing_MU, teachers, strict=True):
        if name in committed:
            missing_U[indexes_in(committed[name], first_code(segment.segment, view), segment.units)] = False
    return missing_MU


def _distinct(missing_MT: NDArray[np.bool_]) -> tuple[list[tuple[bool, ...]], NDArray[np.int32]]:
    """The K different columns, and which of them each of T is; told apart teacher by teacher, unsorted."""
    columns: list[tuple[bool, ...]] = [()]
    which_T = np.zeros(missing_MT.shape[1], dtype=np.int32)
    for missing_T in missing_MT:
        split_T = 2 * which_T + missing_T
        found_K = np.flatnonzero(np.bincount(split_T, minlength=2 * len(columns)))
        numbers = np.zeros(2 * len(columns), dtype=np.int32)
        numbers[found_K] = np.arange(len(found_K))
        columns = [(*columns[split // 2], bool(split % 2)) for split in found_K]
        which_T = numbers[split_T]
    return columns, which_T
