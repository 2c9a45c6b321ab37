"""Arrays of a store that another tool wrote: which they are, and the objects that hold a unit of them.

An array is one of these where the newest generation records another `zarr.json` than follows from the
manifests. softcask reads them, through zarr-python, and never writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.layout import array_layouts
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.growth import check_growth
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest, TeacherManifest
from softcask.storage_schemas.zarr_foreign import MOST_DOCUMENT_BYTES, ForeignArray, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignUnit:
    """A unit's rows in one such array.

    Attributes:
        folder: Key of the array.
        array: How it is laid out.
        start: First row of the unit in its segment.
        stop: End of its rows.
    """

    folder: str
    array: ForeignArray
    start: int
    stop: int

    def records(self, committed: Iterable[ObjectRecord]) -> tuple[ObjectRecord, ...]:
        """Those of a unit's records that are of this array; an object that has none holds blank rows.

        Raises:
            CorruptObject: One is of rows that are not the unit's, or they would unpack to what no logits do.
        """
        places = {f"{self.folder}/{self.array.key(cell)}" for cell in self.array.cells(self.start, self.stop)}
        found = tuple(record for record in committed if record.key.startswith(f"{self.folder}/"))
        if wrong := [record.key for record in found if record.key not in places]:
            raise CorruptObject(
                f"{wrong[0]} is committed with rows {self.start} to {self.stop - 1}, not of it"
            )
        size = sum(record.size for record in found)
        check_growth(size, self.array.unit_bytes(self.start, self.stop), self.folder)
        return found


class ForeignArrays:
    """Finds them, when asked; safe to share between threads."""

    def __init__(self, objects: StoreObjects, sealed: Iterable[ObjectRecord]) -> None:
        """Nothing is read yet.

        Args:
            objects: The store.
            sealed: Records of a generation's manifests.
        """
        self._objects = objects
        self._sealed = {record.key: record for record in sealed if record.key.endswith("/zarr.json")}
        self._known: dict[tuple[str, str, int], Mapping[str, ForeignArray]] = {}

    def of(self, teacher: TeacherManifest, segment: SegmentManifest, view: int) -> Mapping[str, ForeignArray]:
        """Those of a teacher over a segment, by column; for most stores none.

        Raises:
            CorruptObject: A `zarr.json` is damaged, or of another array than this.
            StoreError: One describes a layout that softcask does not read; says why.
        """
        place = teacher.name, segment.segment, view
        if place not in self._known:
            self._known[place] = self._read(teacher, segment, view)
        return self._known[place]

    def units(
        self, teacher: TeacherManifest, segment: SegmentManifest, view: int, index: int
    ) -> Sequence[ForeignUnit]:
        """A unit's rows in them, one a column; raises as `of` does."""
        group, (start, stop) = keys.logits_group(*_place(teacher, segment, view)), segment.unit_range(index)
        return [
            ForeignUnit(folder=f"{group}/{name}", array=array, start=start, stop=stop)
            for name, array in self.of(teacher, segment, view).items()
        ]

    def _read(
        self, teacher: TeacherManifest, segment: SegmentManifest, view: int
    ) -> Mapping[str, ForeignArray]:
        group, found = keys.logits_group(*_place(teacher, segment, view)), {}
        for name, layout in array_layouts(teacher, segment).items():
            record = self._sealed.get(key := f"{group}/{name}/zarr.json")
            if record is None or record == ObjectRecord.of(key, layout.metadata()):
                continue
            if record.size > MOST_DOCUMENT_BYTES:
                raise CorruptObject(f"{key} has {record.size} bytes, at most {MOST_DOCUMENT_BYTES} are read")
            data = self._objects.read_recorded(record)
            found[name] = parse(data, layout.column, segment.rows, segment.unit_rows, key)
        return found


def _place(teacher: TeacherManifest, segment: SegmentManifest, view: int) -> tuple[str, str, int]:
    return teacher.name, segment.segment, view
