"""The catalog: sealed generations of commits, so that a reader opens a store without listing it.

A generation is immutable: its manifest names the tables of commits it is made of, its own and those it
inherits. The pointer is a hint; a reader looks for later generations beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from softcask.pipeline.store.commit import committed_units, read_commit
from softcask.pipeline.store.objects import StoreObjects
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import (
    Generation,
    ObjectRecord,
    Pointer,
    SegmentManifest,
    TeacherManifest,
    UnitCommit,
)

_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The manifests of a store, as they stand.

    Attributes:
        segments: In order.
        teachers: By name.
    """

    segments: tuple[SegmentManifest, ...]
    teachers: Mapping[str, TeacherManifest]

    @property
    def planned_units(self) -> int:
        """Units that a teacher has over all segments."""
        return sum(segment.units for segment in self.segments)


def read_contents(objects: StoreObjects) -> Contents:
    """List and read the manifests of segments and teachers that stand in the store now."""
    segments = [
        SegmentManifest.from_bytes(data, key)
        for name in objects.parts("transfer_set")
        if (data := objects.read_if_present(key := keys.segment_manifest(name))) is not None
    ]
    teachers = [
        TeacherManifest.from_bytes(data, key)
        for name in objects.parts("teachers")
        if (data := objects.read_if_present(key := keys.teacher_manifest(name))) is not None
    ]
    return Contents(segments=tuple(segments), teachers={teacher.name: teacher for teacher in teachers})


def newest_generation(objects: StoreObjects) -> Generation | None:
    """The newest sealed generation, or None where nothing was sealed yet."""
    number = pointed_at(objects)
    # Two drivers may have moved the pointer in either order, or died before moving it.
    newest = _read_generation(objects, number) if number else None
    if number and newest is None:
        raise CorruptObject(f"{keys.CATALOG_POINTER} names generation {number}, which is not there")
    while (later := _read_generation(objects, number + 1)) is not None:
        number, newest = number + 1, later
    return newest


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


def read_unsealed(objects: StoreObjects, contents: Contents, sealed: pa.Table) -> pa.Table:
    """Commits that stand in the store but in no generation, in a fixed order, each receipt checked."""
    known = set(zip(sealed["teacher"].to_pylist(), sealed["unit"].to_pylist(), strict=True))
    wanted = [
        (teacher, unit)
        for _, teacher in sorted(contents.teachers.items())
        for unit in sorted(committed_units(objects, teacher.name))
        if (teacher.name, unit) not in known
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        commits = list(pool.map(lambda pair: read_commit(objects, *pair), wanted))
    return _table(commit for commit in commits if commit is not None)


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
    return Generation.from_bytes(data, key) if data is not None else None


def _table(commits: Iterable[UnitCommit]) -> pa.Table:
    rows = []
    for commit in commits:
        segment, view, index = keys.parse_unit(commit.unit)
        key = keys.commit(commit.teacher, commit.unit)
        rows.append(
            {
                **{name: getattr(commit, name) for name in ("teacher", "unit", "start", "stop")},
                **{name: getattr(commit, name) for name in ("rows", "labelled", "correct")},
                "segment": segment,
                "view": view,
                "index": index,
                "objects": [record.model_dump() for record in commit.objects],
                "receipt": ObjectRecord.of(key, commit.to_bytes()).model_dump(),
            }
        )
    return pa.Table.from_pylist(rows, schema=tables.COMMITS)
