"""Which units are committed, and what was recorded of their objects: the commits of a catalog, by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.store.foreign_arrays import ForeignArrays, ForeignUnit
from softcask.pipeline.store.layout import Shard, UnitObject, array_layouts, unit_objects
from softcask.storage_schemas.errors import CorruptObject, IncompleteStore
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest, TeacherManifest
from softcask.storage_schemas.unit_codes import UNITS_A_SEGMENT, UNITS_A_VIEW, indexes_in
from softcask.storage_schemas.zarr_layout import ArrayLayout

UnitKey = tuple[str, int, int, int]
"""Teacher, number of the segment, view, place in the segment."""
UnitObjects = Sequence[tuple[UnitObject | ForeignUnit, Sequence[ObjectRecord]]]
"""What holds a unit's columns, each with what was recorded of its objects: one, but for a foreign one."""


class UnitIndex:
    """Committed units of a store: 16 bytes each, beside the table of their commits."""

    def __init__(
        self,
        uri: str,
        commits: pa.Table,
        segments: Sequence[SegmentManifest],
        teachers: Mapping[str, TeacherManifest],
        foreign: ForeignArrays,
    ) -> None:
        """Find the units of these segments and teachers; their objects are looked at when asked for.

        Args:
            uri: Where the store is, for messages.
            commits: With the schema `tables.COMMITS`.
            segments: In order.
            teachers: By name.
            foreign: Arrays that another tool wrote.

        Raises:
            CorruptObject: A commit is of rows that its segment does not give to the unit.
        """
        self._uri, self._commits, self._segments, self._teachers = uri, commits, segments, teachers
        self._foreign = foreign
        self._found = self._indexed() if segments else {}
        self._layouts: dict[tuple[str, int, int], Mapping[str, ArrayLayout]] = {}

    def missing(self, teacher: str, view: int) -> list[tuple[str, int]]:
        """Units (segment, index) of a teacher that are planned and not committed."""
        missing = []
        for number, segment in enumerate(self._segments):
            left_U = np.ones(segment.units, dtype=np.bool_)
            code_U, _ = self._units(teacher)
            left_U[indexes_in(code_U, number * UNITS_A_SEGMENT + view * UNITS_A_VIEW, segment.units)] = False
            missing += [(segment.segment, index) for index in np.flatnonzero(left_U).tolist()]
        return missing

    def commits_of(self, teacher: str, view: int) -> list[tuple[int, int, int]]:
        """(segment, place in it, row in the table of commits) of a teacher's units, in order."""
        code_U, commit_U = self._units(teacher)
        number_U, rest_U = np.divmod(code_U, UNITS_A_SEGMENT)
        view_U, index_U = np.divmod(rest_U, UNITS_A_VIEW)
        mine = view_U == view
        columns = (number_U[mine].tolist(), index_U[mine].tolist(), commit_U[mine].tolist())
        return list(zip(*columns, strict=True))

    def objects(self, unit: UnitKey) -> UnitObjects:
        """What holds a unit's logits, with what was recorded of it.

        Raises:
            IncompleteStore: The unit is not committed.
            CorruptObject: Nothing was recorded of an object, or nothing that could be.
            StoreError: It lies in an array that another tool wrote, as softcask does not read it.
        """
        name, number, view, index = unit
        teacher, segment = self._teachers[name], self._segments[number]
        commit = self._commit(unit)
        if commit is None:
            missing = len(self.missing(name, view))
            raise IncompleteStore(
                f"unit {index} of teacher {name!r} (segment {segment.segment}, view {view}) is not "
                f"committed in {self._uri}; {missing} of its units are missing. Run `softcask precompute` "
                "again to label them."
            )
        foreign = self._foreign.units(teacher, segment, view, index)
        names = {unit.array.column.name for unit in foreign}
        own = [
            part
            for part in unit_objects(teacher, segment, view, index)
            if not (isinstance(part, Shard) and part.layout.column.name in names)
        ]
        committed = self._records(commit) if foreign else ()
        return [
            *((part, (self.record(commit, part.key),)) for part in own),
            *((unit, unit.records(committed)) for unit in foreign),
        ]

    def plain_layouts(self, teacher: str, segment: int, view: int) -> Mapping[str, ArrayLayout]:
        """Layouts of a teacher's columns over a segment, by name; none unless in our plain shards."""
        key = teacher, segment, view
        if key not in self._layouts:
            place = self._teachers[teacher], self._segments[segment]
            layouts = array_layouts(*place)
            plain = all(layout.compression == "none" for layout in layouts.values())
            plain = plain and not self._foreign.of(*place, view)
            self._layouts[key] = layouts if plain else {}
        return self._layouts[key]

    def unit_rows(self, segment: int) -> int:
        """Rows a unit of a segment."""
        return self._segments[segment].unit_rows

    def record(self, commit: int, key: str) -> ObjectRecord:
        """What was recorded of the object `key` in a row of the table of commits.

        Raises:
            CorruptObject: Nothing, or nothing that could be.
        """
        records = self._commits["objects"][commit].as_py() or ()
        record = next((record for record in records if record and record["key"] == key), None)
        if record is None:
            raise CorruptObject(
                f"the catalog of {self._uri} has no record of {key}, though its unit is committed"
            )
        return self._validated(record)

    def _records(self, commit: int) -> list[ObjectRecord]:
        """All that were recorded in a row of the table of commits."""
        return [self._validated(record) for record in self._commits["objects"][commit].as_py() or ()]

    def _validated(self, record: object) -> ObjectRecord:
        try:
            return ObjectRecord.model_validate(record)
        except ValidationError as error:
            raise CorruptObject(
                f"the catalog of {self._uri} has no usable record of {record}: {error}"
            ) from error

    def _units(self, teacher: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._found.get(teacher, (np.empty(0, np.int64), np.empty(0, np.int64)))

    def _commit(self, unit: UnitKey) -> int | None:
        name, number, view, index = unit
        code_U, commit_U = self._units(name)
        code = number * UNITS_A_SEGMENT + view * UNITS_A_VIEW + index
        place = int(np.searchsorted(code_U, code))
        return int(commit_U[place]) if place < len(code_U) and code_U[place] == code else None

    def _indexed(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """By teacher: codes of its units, rising, and the last commit of each; segments by their place."""
        number_U = _numbers(self._commits["segment"], [segment.segment for segment in self._segments])
        name_U = _numbers(self._commits["teacher"], list(self._teachers))
        known_U = (number_U >= 0) & (name_U >= 0)
        self._refuse_other_rows(number_U, known_U)
        code_U = number_U * UNITS_A_SEGMENT + self._integers("view") * UNITS_A_VIEW + self._integers("index")
        found = {}
        for place, name in enumerate(self._teachers):
            commit_U = np.flatnonzero(known_U & (name_U == place))
            commit_U = commit_U[np.argsort(code_U[commit_U], kind="stable")]
            last_U = np.append(code_U[commit_U][1:] != code_U[commit_U][:-1], True)[: len(commit_U)]
            found[name] = code_U[commit_U[last_U]], commit_U[last_U]
        return found

    def _refuse_other_rows(self, number_U: NDArray[np.int64], known_U: NDArray[np.bool_]) -> None:
        unit_rows_U, units_U, rows_U = (
            np.array([getattr(segment, name) for segment in self._segments], dtype=np.int64)[number_U]
            for name in ("unit_rows", "units", "rows")
        )
        index_U, start_U, stop_U = (self._integers(name) for name in ("index", "start", "stop"))
        # What is out of range is moved into it first: an index of anybody's is not to be multiplied.
        place_U = np.clip(index_U, 0, np.maximum(units_U - 1, 0))
        first_U = place_U * unit_rows_U
        end_U = np.minimum(first_U + unit_rows_U, rows_U)
        view_U = self._integers("view")
        right_U = (place_U == index_U) & (index_U < units_U) & (first_U == start_U) & (end_U == stop_U)
        right_U &= (index_U < UNITS_A_VIEW) & (view_U >= 0) & (view_U < UNITS_A_SEGMENT // UNITS_A_VIEW)
        if (wrong := np.flatnonzero(known_U & ~right_U)).size:
            commit = int(wrong[0])
            name = self._commits["teacher"][commit].as_py()
            raise CorruptObject(
                f"the catalog of {self._uri} gives unit {index_U[commit]} of {name!r} the rows "
                f"{start_U[commit]} to {stop_U[commit]}, which the segment does not"
            )

    def _integers(self, name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = self._commits[name].to_numpy().astype(np.int64)
        return values


def _numbers(names: pa.ChunkedArray, known: Sequence[str]) -> NDArray[np.int64]:
    """Place of each name among those known, -1 for others."""
    places = pc.index_in(names, value_set=pa.array(known, pa.string()))
    numbers: NDArray[np.int64] = pc.fill_null(places, -1).to_numpy().astype(np.int64)
    return numbers
