"""The catalog: sealed generations of commits, so that a reader opens a store without listing it.

A generation is immutable: its manifest names the tables of commits it is made of, its own and those it
inherits, and what was dropped. The pointer is a hint; a reader looks for later generations beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import (
    Dropped,
    Generation,
    Pointer,
    SegmentManifest,
    TeacherManifest,
)
from softcask.storage_schemas.unit_codes import UnitCodes, first_code, indexes_in
from softcask.storage_schemas.views import ViewManifest

Manifest = TypeVar("Manifest", SegmentManifest, TeacherManifest, ViewManifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The manifests of a store, as they stand.

    Attributes:
        segments: In order.
        teachers: By name.
        views: By number, from 1 on; view 0 needs no document.
    """

    segments: tuple[SegmentManifest, ...]
    teachers: Mapping[str, TeacherManifest]
    views: Mapping[int, ViewManifest] = field(default_factory=dict)

    def views_of(self, teacher: str) -> tuple[int, ...]:
        """Numbers of the views that a teacher is to have: all, but only 0 of what is imported."""
        return (0,) if self.teachers[teacher].kind == "imported" else (0, *self.views)

    def planned_units(self, teacher: str) -> int:
        """Units that a teacher is to have, over all segments and views."""
        return len(self.views_of(teacher)) * sum(segment.units for segment in self.segments)

    @property
    def segment_numbers(self) -> list[int]:
        """Numbers of its segments."""
        return [keys.segment_number(segment.segment) for segment in self.segments]

    def planned_among(self, codes: UnitCodes, teacher: str) -> int:
        """How many of these units are among those that a teacher is to have."""
        return sum(
            len(indexes_in(codes, first_code(segment.segment, view), segment.units))
            for segment in self.segments
            for view in self.views_of(teacher)
        )

    def without(self, dropped: Dropped) -> Contents:
        """What of it is not dropped."""
        return Contents(
            segments=tuple(each for each in self.segments if each.segment not in dropped.segments),
            teachers={name: each for name, each in self.teachers.items() if name not in dropped.teachers},
            views=self.views,
        )


def read_contents(objects: StoreObjects, dropped: Dropped | None = None) -> Contents:
    """List and read the manifests of segments and teachers that stand in the store now.

    Args:
        objects: The store.
        dropped: What is left out, and not even read.
    """
    dropped = dropped or Dropped()
    segments = [
        in_place(key, SegmentManifest.from_bytes(data, key))
        for name in objects.parts("transfer_set")
        if name not in dropped.segments
        and (data := objects.read_if_present(key := keys.segment_manifest(name))) is not None
    ]
    teachers = [
        in_place(key, TeacherManifest.from_bytes(data, key))
        for name in objects.parts("teachers")
        if name not in dropped.teachers
        and (data := objects.read_if_present(key := keys.teacher_manifest(name))) is not None
    ]
    return Contents(
        segments=tuple(segments),
        teachers={teacher.name: teacher for teacher in teachers},
        views=standing_views(objects),
    )


def sealed_contents(objects: StoreObjects, generation: Generation | None) -> Contents:
    """Read the manifests that a generation holds: nothing is listed. Of None there are none.

    Raises:
        CorruptObject: One is gone, or its bytes are not those that were sealed.
    """
    segments: list[SegmentManifest] = []
    teachers: dict[str, TeacherManifest] = {}
    views: dict[int, ViewManifest] = {}
    for record in generation.manifests if generation else ():
        if record.key.endswith("/segment.json"):
            segment = SegmentManifest.from_bytes(objects.read_recorded(record), record.key)
            segments.append(in_place(record.key, segment))
        elif record.key.endswith("/teacher.json"):
            teacher = TeacherManifest.from_bytes(objects.read_recorded(record), record.key)
            teachers[teacher.name] = in_place(record.key, teacher)
        elif keys.view_number(record.key):
            view = ViewManifest.from_bytes(objects.read_recorded(record), record.key)
            views[view.view] = in_place(record.key, view)
    return Contents(segments=tuple(segments), teachers=teachers, views=views)


def standing_views(objects: StoreObjects) -> dict[int, ViewManifest]:
    """List and read what the views of a store are pinned to, by number.

    Raises:
        CorruptObject: A document is damaged.
    """
    names = [f"{keys.VIEWS}/{name}" for name in objects.names(keys.VIEWS)]
    found = ((key, objects.read_if_present(key)) for key in names if keys.view_number(key))
    views = [in_place(key, ViewManifest.from_bytes(data, key)) for key, data in found if data is not None]
    return {each.view: each for each in views}


def in_place(key: str, manifest: Manifest) -> Manifest:
    """`manifest` itself if it lies where its own name says.

    Raises:
        CorruptObject: It lies elsewhere.
    """
    if isinstance(manifest, SegmentManifest):
        expected = keys.segment_manifest(manifest.segment)
    elif isinstance(manifest, ViewManifest):
        expected = keys.view_manifest(manifest.view)
    else:
        expected = keys.teacher_manifest(manifest.name)
    if key != expected:
        raise CorruptObject(f"{key} holds the document that belongs at {expected}; it was moved or copied")
    return manifest


def newest_generation(objects: StoreObjects) -> Generation | None:
    """The newest sealed generation, or None where nothing was sealed yet.

    Raises:
        CorruptObject: It or the pointer is damaged, or the pointer names one that is not there.
    """
    number = pointed_at(objects)
    newest = _read_generation(objects, number) if number else None
    if newest is None:
        newest = _newest_listed(objects)
        if number > (newest.generation if newest else 0):
            raise CorruptObject(f"{keys.CATALOG_POINTER} names generation {number}, which is not there")
    # Two drivers may have moved the pointer in either order, or died before moving it.
    while newest is not None and (later := _read_generation(objects, newest.generation + 1)) is not None:
        newest = later
    return newest


def generation_to_read(objects: StoreObjects, number: int | None) -> Generation | None:
    """The newest sealed generation, or the one of this number; None where nothing was sealed yet.

    Raises:
        CorruptObject: As `newest_generation`.
        StoreError: The one asked for is gone.
    """
    if number is None:
        return newest_generation(objects)
    if (found := _read_generation(objects, number)) is None:
        raise StoreError(
            f"generation {number} of {objects.uri} is gone: newer ones were sealed, and it was collected. "
            "Open the store anew."
        )
    return found


def generation_numbers(objects: StoreObjects) -> list[int]:
    """Numbers in the catalog, rising; who seals may have died before the manifest of the last one."""
    names = objects.parts("catalog")
    return sorted(int(name) for name in names if len(name) == 8 and name.isascii() and name.isdigit())


def _newest_listed(objects: StoreObjects) -> Generation | None:
    """Where the pointer leads nowhere: it is written last, and may be behind what `gc` has left."""
    found = (_read_generation(objects, number) for number in reversed(generation_numbers(objects)) if number)
    return next((generation for generation in found if generation is not None), None)


def read_commits(objects: StoreObjects, generation: Generation) -> pa.Table:
    """The commits of a generation, with the schema `COMMITS`, every table checked.

    Raises:
        CorruptObject: A table is gone, or its bytes are not those that were sealed.
    """
    parts = [
        tables.from_bytes(objects.read_recorded(record), tables.COMMITS, record.key)
        for record in generation.tables
    ]
    return pa.concat_tables(parts) if parts else tables.COMMITS.empty_table()


def read_dropped_rows(objects: StoreObjects, dropped: Dropped) -> pa.Array:
    """Sample ids that are dropped.

    Raises:
        CorruptObject: Their table is gone or damaged.
    """
    if (record := dropped.rows) is None:
        return pa.array([], pa.string())
    table = tables.from_bytes(objects.read_recorded(record), tables.DROPPED, record.key)
    return table["sample_id"].combine_chunks()


def hide_rows(rows: pa.Table, dropped: pa.Array) -> pa.Table:
    """A segment's rows, those that are dropped quarantined like rows that could not be read."""
    if not len(dropped):
        return rows
    place = rows.schema.get_field_index("quarantine")
    reasons = pc.if_else(pc.is_in(rows["sample_id"], value_set=dropped), "dropped", rows["quarantine"])
    return rows.set_column(place, rows.schema.field("quarantine"), reasons)


def pointed_at(objects: StoreObjects) -> int:
    """Number of the generation that the pointer names; 0 where there is none.

    Raises:
        CorruptObject: The pointer is damaged.
    """
    data = objects.read_if_present(keys.CATALOG_POINTER)
    try:
        return Pointer.from_bytes(data, keys.CATALOG_POINTER).generation if data is not None else 0
    except CorruptObject as error:
        raise CorruptObject(f"{error}. Remove it: generations are found without it.") from error


def _read_generation(objects: StoreObjects, number: int) -> Generation | None:
    key = keys.generation(number)
    data = objects.read_if_present(key)
    if data is None:
        return None
    generation = Generation.from_bytes(data, key)
    if generation.generation != number:
        raise CorruptObject(f"{key} is the document of generation {generation.generation}; it was moved")
    return generation
