"""Seal what is committed into a generation of the catalog. Sealing adds one table with what is new."""

from __future__ import annotations

from collections.abc import Container, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.catalog import (
    Contents,
    newest_generation,
    pointed_at,
    read_commits,
    read_contents,
    read_unsealed,
)
from softcask.pipeline.store.layout import zarr_metadata
from softcask.pipeline.store.objects import StoreObjects
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import Generation, ObjectRecord, Pointer, TeacherTotals


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
                if not pointed_at(objects):
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
