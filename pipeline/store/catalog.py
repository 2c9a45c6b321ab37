"""The catalog: sealed generations of commits, so that a reader opens a store without listing it.

A generation is immutable: its manifest names the tables of commits it is made of, its own and those it
inherits. Sealing adds one table with what is new. The pointer is a hint; a reader looks for later
generations beside it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.commit import committed_units, read_commit
from softcask.pipeline.store.layout import zarr_metadata
from softcask.pipeline.store.objects import StoreObjects
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import (
    Generation,
    ObjectRecord,
    Pointer,
    SegmentManifest,
    TeacherManifest,
    TeacherTotals,
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
    number = _pointed_at(objects)
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


def seal(objects: StoreObjects) -> Generation:
    """Seal what is committed now into a generation; nothing new makes no new one.

    Raises:
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    while True:
        newest = newest_generation(objects)
        sealed = read_commits(objects, newest) if newest else tables.COMMITS.empty_table()
        contents = read_contents(objects)
        fresh = read_unsealed(objects, contents, sealed)
        commits = pa.concat_tables([sealed, fresh])
        manifests = _manifest_records(objects, contents, set(pc.unique(commits["teacher"]).to_pylist()))
        if newest is not None:
            _refuse_changed(objects, newest, manifests)
            if not len(fresh) and newest.manifests == manifests:
                if not _pointed_at(objects):
                    objects.replace(keys.CATALOG_POINTER, Pointer(generation=newest.generation).to_bytes())
                return newest
        number = newest.generation + 1 if newest else 1
        inherited = newest.tables if newest else ()
        generation = Generation(
            generation=number,
            tables=(*inherited, _publish_table(objects, number, fresh)) if len(fresh) else inherited,
            manifests=manifests,
            teachers=_totals(contents, commits),
        )
        if objects.publish(keys.generation(number), generation.to_bytes()):
            objects.replace(keys.CATALOG_POINTER, Pointer(generation=number).to_bytes())
            return generation


def _pointed_at(objects: StoreObjects) -> int:
    data = objects.read_if_present(keys.CATALOG_POINTER)
    try:
        return Pointer.from_bytes(data, keys.CATALOG_POINTER).generation if data is not None else 0
    except CorruptObject as error:
        raise CorruptObject(f"{error}. Remove it: generations are found without it.") from error


def _refuse_changed(objects: StoreObjects, newest: Generation, manifests: Iterable[ObjectRecord]) -> None:
    """A manifest that was sealed never changes: damage must not be sealed as the new truth."""
    standing = {record.key: record for record in manifests}
    for record in newest.manifests:
        if (found := standing.get(record.key)) != record:
            what = "was sealed and is gone" if found is None else "is not what was sealed; it was changed"
            raise CorruptObject(
                f"{record.key} of {objects.uri} {what}. Put it back from a copy of the store. Or, if what "
                "stands now is right, remove the folder catalog and run again to seal that."
            )


def _read_generation(objects: StoreObjects, number: int) -> Generation | None:
    key = keys.generation(number)
    data = objects.read_if_present(key)
    return Generation.from_bytes(data, key) if data is not None else None


def _publish_table(objects: StoreObjects, number: int, table: pa.Table) -> ObjectRecord:
    """Named by content, so that two drivers that seal at once cannot take each other's name."""
    data = tables.to_bytes(table)
    record = ObjectRecord.of("", data)
    key = keys.generation_commits(number, record.crc32c)
    if not objects.publish(key, data) and objects.read(key) != data:
        objects.replace(key, data)
    return record.model_copy(update={"key": key})


def _manifest_records(
    objects: StoreObjects, contents: Contents, committed: Container[str]
) -> tuple[ObjectRecord, ...]:
    """Records of all manifests that will not change any more."""
    named = [keys.ROOT, *(keys.segment_manifest(segment.segment) for segment in contents.segments)]
    for name, teacher in sorted(contents.teachers.items()):
        if name not in committed:
            continue  # its name may still be pinned anew, and this generation must outlast that
        named += [keys.teacher_manifest(teacher.name), keys.probe(teacher.name)]
        named += [key for segment in contents.segments for key in zarr_metadata(teacher, segment, 0)]
    found = [(key, objects.read_if_present(key)) for key in named]
    return tuple(ObjectRecord.of(key, data) for key, data in found if data is not None)


def _totals(contents: Contents, commits: pa.Table) -> dict[str, TeacherTotals]:
    totals = {}
    for name in sorted(contents.teachers):
        mine = commits.filter(pc.equal(commits["teacher"], name))
        totals[name] = TeacherTotals(
            units=len(mine),
            planned_units=contents.planned_units,
            rows=sum(mine["rows"].to_pylist()),
            labelled=sum(mine["labelled"].to_pylist()),
            correct=sum(mine["correct"].to_pylist()),
            bytes=sum(record["size"] for records in mine["objects"].to_pylist() for record in records),
        )
    return totals


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
