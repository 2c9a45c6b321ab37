"""Seal what is committed into a generation of the catalog. Sealing adds one table with what is new."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import (
    Contents,
    generation_numbers,
    newest_generation,
    pointed_at,
    read_contents,
)
from softcask.pipeline.store.commit_tables import Commits, CommitTable, choose, totals_of
from softcask.pipeline.store.layout import zarr_metadata
from softcask.pipeline.store.receipts import CommitRow
from softcask.pipeline.store.unsealed import (
    PENDING_UNITS,
    as_units,
    collect,
    pending_keys,
    read_pending,
    table_of,
)
from softcask.pipeline.store.writing.compacting import TABLE_UNITS, first_to_merge, merged
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreError
from softcask.storage_schemas.manifest import Dropped, Generation, ObjectRecord, Pointer, TeacherTotals
from softcask.storage_schemas.unit_codes import views_of

_READERS = 16


@dataclass(slots=True)
class Sealing:
    """Seals what reports bring, while a run goes on: in pending tables first, in a generation at its end.

    A process that dies loses nothing: receipts are the truth, and those that stand in no table are read.

    Attributes:
        objects: The store.
    """

    objects: StoreObjects
    _rows: list[CommitRow] = field(default_factory=list)

    def add(self, rows: Iterable[CommitRow]) -> None:
        """Take what the catalog is to say of some units; a pending table is written when they are many.

        Raises:
            StoreAccess: The filesystem refused.
            CorruptObject: A document of the catalog is damaged.
        """
        self._rows += rows
        if len(self._rows) >= PENDING_UNITS:
            self.write_pending()

    def write_pending(self) -> None:
        """Write what was taken since the last table; see `add`."""
        if self._rows:
            newest = newest_generation(self.objects)
            _publish_commits(self.objects, newest.generation + 1 if newest else 1, table_of(self._rows))
            self._rows.clear()

    def finish(self) -> Generation:
        """Seal all that is committed; see `seal`."""
        return seal(self.objects, self._rows)


def seal(objects: StoreObjects, fresh: Sequence[CommitRow] = ()) -> Generation:
    """Seal what is committed now into a generation; nothing new makes no new one.

    Args:
        objects: The store.
        fresh: What the catalog is to say of some units, so that their receipts are not read.

    Raises:
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    reported = [CommitTable.of(table_of(fresh), "what this run reported")] if fresh else []
    while True:
        newest = newest_generation(objects)
        number = newest.generation + 1 if newest else 1
        contents = read_contents(objects, newest.dropped if newest else None)
        standing = _tables(objects, newest)
        sealed = choose(standing, contents)
        waiting = pending_keys(objects)
        at_hand = [*reported, *read_pending(objects, waiting, contents)]
        added = collect(objects, contents, at_hand, sealed=sealed.units)
        manifests = _manifest_records(objects, contents, [sealed, added])
        if newest is not None:
            _refuse_changed(objects, newest.manifests, manifests)
            if not len(added) and newest.manifests == manifests:
                if not pointed_at(objects):
                    point_at(objects, newest)
                _remove_pending(objects, waiting, newest)
                return newest
        inherited = newest.tables if newest else ()
        kept = first_to_merge(inherited) if len(added) else len(inherited)
        generation = Generation(
            generation=number,
            tables=(
                *inherited[:kept],
                *_publish_all(objects, number, merged(standing[kept:], added, contents)),
            ),
            manifests=manifests,
            teachers=_totals(contents, [sealed, added]),
            dropped=newest.dropped if newest else Dropped(),
        )
        if objects.publish(keys.generation(number), generation.to_bytes()):
            point_at(objects, generation)
            _remove_pending(objects, waiting, generation)
            return generation


def reseal(
    objects: StoreObjects,
    *,
    drop: Callable[[Dropped, int], Dropped] = lambda dropped, _: dropped,
    stale: Collection[tuple[str, str]] = (),
    rebuild: bool = False,
) -> Generation:
    """Seal a generation that inherits no table: its own hold every commit that is to be seen.

    Args:
        objects: The store.
        drop: What is dropped from the new generation on, from what was before and the generation's number.
        stale: Commits (teacher, unit) that are not taken from tables, but from the receipts that stand.
        rebuild: Take all from the receipts, and nothing from the catalog but what is dropped: it is damaged.

    Raises:
        StoreError: Nothing was sealed yet.
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    while True:
        base, number = _newest_whole(objects) if rebuild else _newest(objects)
        dropped = drop(base.dropped if base else Dropped(), number)
        contents = read_contents(objects, dropped)
        waiting = pending_keys(objects)
        at_hand = []
        if not rebuild:
            at_hand = [*_tables(objects, base), *read_pending(objects, waiting, contents)]
        commits = collect(objects, contents, at_hand, stale=as_units(stale))
        manifests = _manifest_records(objects, contents, [commits])
        if base is not None:
            _refuse_changed(objects, _still(base.manifests, dropped, [commits]), manifests)
        generation = Generation(
            generation=number,
            tables=_publish_all(objects, number, commits.tables(TABLE_UNITS)),
            manifests=manifests,
            teachers=_totals(contents, [commits]),
            dropped=dropped,
        )
        if objects.publish(keys.generation(number), generation.to_bytes()):
            point_at(objects, generation)
            _remove_pending(objects, waiting, generation)
            return generation


def forget_pending(objects: StoreObjects) -> None:
    """Remove tables that wait to be sealed: receipts that they repeat are about to change."""
    for key in pending_keys(objects):
        objects.remove(key)


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
    return _publish(objects, key_of, tables.to_bytes(table))


def _publish(objects: StoreObjects, key_of: Callable[[str], str], data: bytes) -> ObjectRecord:
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
    folders = generation_numbers(objects)
    numbers = [each for each in folders if "generation.json" in objects.names(f"catalog/{each:08d}")]
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


def _still(
    records: Iterable[ObjectRecord], dropped: Dropped, commits: Sequence[Commits]
) -> list[ObjectRecord]:
    """Records that a new generation must hold, too."""
    committed, views = _committed(commits), _committed_views(commits)
    owners = ((record, keys.owner(record.key)) for record in records)
    return [
        record
        for record, (teacher, segment) in owners
        if segment not in dropped.segments
        and (teacher is None or teacher in committed)
        and keys.view_of(record.key) in views
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


def _tables(objects: StoreObjects, generation: Generation | None) -> list[CommitTable]:
    records = generation.tables if generation else ()
    return [CommitTable.of(objects.read_recorded(record), record.key) for record in records]


def _publish_all(objects: StoreObjects, number: int, made: Iterable[pa.Table]) -> tuple[ObjectRecord, ...]:
    return tuple(_publish_commits(objects, number, tables.to_bytes(table)) for table in made)


def _publish_commits(objects: StoreObjects, number: int, data: bytes) -> ObjectRecord:
    return _publish(objects, lambda crc: keys.generation_commits(number, crc), data)


def _remove_pending(objects: StoreObjects, waiting: Iterable[str], generation: Generation) -> None:
    """What they held is sealed."""
    for key in set(waiting) - {record.key for record in generation.tables}:
        objects.remove(key)


def _committed(commits: Iterable[Commits]) -> set[str]:
    return {name for each in commits for name, codes in each.units.items() if len(codes)}


def _committed_views(commits: Iterable[Commits]) -> list[int]:
    """Numbers of the views of which some unit is committed, and 0."""
    codes = [codes for each in commits for codes in each.units.values()]
    return sorted({0}.union(*(np.unique(views_of(each)).tolist() for each in codes)))


def _manifest_records(
    objects: StoreObjects, contents: Contents, commits: Sequence[Commits]
) -> tuple[ObjectRecord, ...]:
    """Records of all manifests that will not change any more."""
    named, committed, views = [keys.ROOT], _committed(commits), _committed_views(commits)
    named += [keys.segment_manifest(segment.segment) for segment in contents.segments]
    named += [keys.view_manifest(view) for view in views if view]
    for name, teacher in sorted(contents.teachers.items()):
        if name not in committed:
            continue  # its name may still be pinned anew, and this generation must outlast that
        named += [keys.teacher_manifest(teacher.name), keys.probe(teacher.name)]
        named += [
            key
            for segment in contents.segments
            for view in views
            for key in zarr_metadata(teacher, segment, view)
        ]
    with ThreadPoolExecutor(_READERS) as pool:  # some for each view, of which there may be hundreds
        found = list(pool.map(objects.read_if_present, named))
    return tuple(
        ObjectRecord.of(key, data) for key, data in zip(named, found, strict=True) if data is not None
    )


def _totals(contents: Contents, commits: Sequence[Commits]) -> dict[str, TeacherTotals]:
    return {
        name: totals_of(commits, name, contents.planned_units(name)) for name in sorted(contents.teachers)
    }
