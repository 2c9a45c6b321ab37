"""Seal what is committed into a generation of the catalog. Sealing adds one table with what is new."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import (
    Contents,
    generation_numbers,
    newest_generation,
    pointed_at,
    read_commits,
    read_contents,
    read_unsealed,
)
from softcask.pipeline.store.layout import zarr_metadata
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreError
from softcask.storage_schemas.manifest import Dropped, Generation, ObjectRecord, Pointer, TeacherTotals


def seal(objects: StoreObjects) -> Generation:
    """Seal what is committed now into a generation; nothing new makes no new one.

    Raises:
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    while True:
        newest = newest_generation(objects)
        sealed = read_commits(objects, newest) if newest else tables.COMMITS.empty_table()
        contents = read_contents(objects, newest.dropped if newest else None)
        fresh = read_unsealed(objects, contents, sealed)
        commits = pa.concat_tables([sealed, fresh])
        manifests = _manifest_records(objects, contents, set(pc.unique(commits["teacher"]).to_pylist()))
        if newest is not None:
            _refuse_changed(objects, newest.manifests, manifests)
            if not len(fresh) and newest.manifests == manifests:
                if not pointed_at(objects):
                    point_at(objects, newest)
                return newest
        number = newest.generation + 1 if newest else 1
        inherited = newest.tables if newest else ()
        generation = Generation(
            generation=number,
            tables=(*inherited, _publish_commits(objects, number, fresh)) if len(fresh) else inherited,
            manifests=manifests,
            teachers=_totals(contents, commits),
            dropped=newest.dropped if newest else Dropped(),
        )
        if objects.publish(keys.generation(number), generation.to_bytes()):
            point_at(objects, generation)
            return generation


def reseal(
    objects: StoreObjects,
    *,
    drop: Callable[[Dropped, int], Dropped] = lambda dropped, _: dropped,
    stale: Collection[tuple[str, str]] = (),
    rebuild: bool = False,
) -> Generation:
    """Seal a generation that inherits no table: one of its own holds every commit that is to be seen.

    Args:
        objects: The store.
        drop: What is dropped from the new generation on, from what was before and the generation's number.
        stale: Commits (teacher, unit) that are not taken from the catalog, but from the receipts that stand.
        rebuild: Take all from the receipts, and nothing from the catalog but what is dropped: it is damaged.

    Raises:
        StoreError: Nothing was sealed yet.
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    while True:
        base, number = _newest_whole(objects) if rebuild else _newest(objects)
        dropped = drop(base.dropped if base else Dropped(), number)
        contents = read_contents(objects, dropped)
        kept = tables.COMMITS.empty_table()
        if base is not None and not rebuild:
            kept = _kept(read_commits(objects, base), contents, stale)
        commits = pa.concat_tables([kept, read_unsealed(objects, contents, kept)])
        commits = commits.sort_by([("teacher", "ascending"), ("unit", "ascending")])
        committed = set(pc.unique(commits["teacher"]).to_pylist())
        manifests = _manifest_records(objects, contents, committed)
        if base is not None:
            _refuse_changed(objects, _still(base.manifests, dropped, committed), manifests)
        generation = Generation(
            generation=number,
            tables=(_publish_commits(objects, number, commits),) if len(commits) else (),
            manifests=manifests,
            teachers=_totals(contents, commits),
            dropped=dropped,
        )
        if objects.publish(keys.generation(number), generation.to_bytes()):
            point_at(objects, generation)
            return generation


def point_at(objects: StoreObjects, generation: Generation) -> None:
    """Move the pointer."""
    objects.replace(keys.CATALOG_POINTER, Pointer(generation=generation.generation).to_bytes())


def publish_named(objects: StoreObjects, key_of: Callable[[str], str], table: pa.Table) -> ObjectRecord:
    """A table of the catalog, named by content: two who seal at once cannot take each other's name.

    Args:
        objects: The store.
        key_of: Its key, from its CRC-32C.
        table: What to publish.
    """
    data = tables.to_bytes(table)
    record = ObjectRecord.of("", data)
    key = key_of(record.crc32c)
    if not objects.publish(key, data) and objects.read(key) != data:
        objects.replace(key, data)
    return record.model_copy(update={"key": key})


def _newest(objects: StoreObjects) -> tuple[Generation, int]:
    newest = newest_generation(objects)
    if newest is None:
        raise StoreError(f"{objects.uri} is not sealed: run `softcask precompute` on it first")
    return newest, newest.generation + 1


def _newest_whole(objects: StoreObjects) -> tuple[Generation | None, int]:
    """The newest generation that can be read, and a number beyond all that are taken."""
    numbers = generation_numbers(objects)
    try:
        last = max([*numbers, pointed_at(objects)])
    except CorruptObject:
        last = max(numbers, default=0)
    for number in reversed(numbers):
        key = keys.generation(number)
        try:
            return Generation.from_bytes(objects.read(key), key), last + 1
        except SoftcaskError:
            continue
    return None, last + 1


def _kept(sealed: pa.Table, contents: Contents, stale: Container[tuple[str, str]]) -> pa.Table:
    """Sealed commits of these contents that are not stale."""
    segments = {segment.segment for segment in contents.segments}
    columns = (sealed[name].to_pylist() for name in ("teacher", "unit", "segment"))
    mask = [
        teacher in contents.teachers and segment in segments and (teacher, unit) not in stale
        for teacher, unit, segment in zip(*columns, strict=True)
    ]
    return sealed.filter(pa.array(mask, pa.bool_()))


def _still(
    records: Iterable[ObjectRecord], dropped: Dropped, committed: Container[str]
) -> list[ObjectRecord]:
    """Records that a new generation must hold, too."""
    owners = ((record, keys.owner(record.key)) for record in records)
    return [
        record
        for record, (teacher, segment) in owners
        if segment not in dropped.segments and (teacher is None or teacher in committed)
    ]


def _refuse_changed(
    objects: StoreObjects, sealed: Iterable[ObjectRecord], manifests: Iterable[ObjectRecord]
) -> None:
    """A manifest that was sealed never changes: damage must not be sealed as the new truth."""
    standing = {record.key: record for record in manifests}
    for record in sealed:
        if (found := standing.get(record.key)) != record:
            what = "was sealed and is gone" if found is None else "is not what was sealed; it was changed"
            raise CorruptObject(
                f"{record.key} of {objects.uri} {what}. Put it back from a copy of the store. Or, if what "
                "stands now is right, remove the folder catalog and run again to seal that; what was dropped "
                "comes back then."
            )


def _publish_commits(objects: StoreObjects, number: int, table: pa.Table) -> ObjectRecord:
    return publish_named(objects, lambda crc: keys.generation_commits(number, crc), table)


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
