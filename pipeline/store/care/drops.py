"""Drop teachers, segments and rows: a new generation without them. No object is removed; `gc` does that.

Who reads an older generation goes on reading it. A name that was dropped is free again when `gc` has taken
what it named; until then a teacher of that name is refused, and a segment is not labelled. A row is dropped
for good, whatever segment brings it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import (
    Contents,
    hide_rows,
    newest_generation,
    read_commits,
    read_contents,
    read_dropped_rows,
)
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.store.writing.sealing import publish_named, reseal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import Dropped, Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPlan:
    """What is to be dropped of a store, and what that comes to.

    Attributes:
        teachers: Names, sorted; those that are dropped already are left out.
        segments: Likewise.
        sample_ids: Rows, sorted.
        units: Sealed units of these teachers and segments.
        bytes: Bytes of their objects, which `gc` can take later.
        readable: Rows that students see now.
        readable_after: Rows that they will see.
    """

    teachers: tuple[str, ...]
    segments: tuple[str, ...]
    sample_ids: tuple[str, ...]
    units: int
    bytes: int
    readable: int
    readable_after: int

    @property
    def nothing(self) -> bool:
        """Whether all of it is dropped already."""
        return not (self.teachers or self.segments or self.sample_ids)


def plan_drop(
    objects: StoreObjects,
    *,
    teachers: Collection[str] = (),
    segments: Collection[str] = (),
    sample_ids: Collection[str] = (),
) -> DropPlan:
    """What dropping these would do; nothing is written.

    Raises:
        StoreError: The store is not sealed, has no such teacher, segment or row, or the segment is the first.
    """
    generation = newest_generation(objects)
    if generation is None:
        raise StoreError(
            f"{objects.uri} is not sealed: run `softcask precompute` on it before you drop of it"
        )
    dropped = generation.dropped
    # To drop a teacher is the way out where its manifest is lost: it is not read.
    names = {*objects.parts("teachers"), *generation.teachers}
    fresh_teachers = _known(objects, "teacher", teachers, names, dropped.teachers)
    contents = read_contents(
        objects, dropped.model_copy(update={"teachers": (*dropped.teachers, *fresh_teachers)})
    )
    gone = read_dropped_rows(objects, dropped)
    held = [segment.segment for segment in contents.segments]
    fresh_segments = _known(objects, "segment", segments, held, dropped.segments)
    _refuse_first(objects, contents, fresh_segments)
    rows = _rows(objects, contents, gone)
    fresh_rows = _known(objects, "row", sample_ids, rows["sample_id"].to_pylist(), gone.to_pylist())
    after = _rows(
        objects,
        contents.without(Dropped(segments=fresh_segments)),
        pa.array([*gone.to_pylist(), *fresh_rows], pa.string()),
    )
    units, size = _taken(objects, generation, fresh_teachers, fresh_segments)
    return DropPlan(
        teachers=fresh_teachers,
        segments=fresh_segments,
        sample_ids=fresh_rows,
        units=units,
        bytes=size,
        readable=rows["quarantine"].null_count,
        readable_after=after["quarantine"].null_count,
    )


def drop(objects: StoreObjects, plan: DropPlan) -> Generation:
    """Seal a generation without what was planned; what was dropped already makes no new one.

    Raises:
        CorruptObject: A document of the catalog is damaged; `softcask repair` mends it.
    """
    newest = newest_generation(objects)
    if plan.nothing and newest is not None:
        return newest
    return reseal(objects, drop=lambda before, number: _with(objects, before, number, plan))


def refuse_dropped(objects: StoreObjects, teachers: Collection[str]) -> Dropped:
    """Refuse to label under names that are dropped: what still stands of them would be taken for new.

    Returns:
        What is dropped; nothing of its segments is to be labelled.

    Raises:
        StoreError: A teacher is dropped; says how to free its name.
    """
    generation = newest_generation(objects)
    dropped = generation.dropped if generation else Dropped()
    if taken := sorted(set(teachers) & set(dropped.teachers)):
        raise StoreError(
            f"teacher {taken[0]!r} was dropped from {objects.uri}, and its objects still stand. Give this "
            f"one another name, or take them away with `softcask gc {objects.uri} --older-than 0s "
            "--delete`, when nobody reads an older generation any more"
        )
    return dropped


def _with(objects: StoreObjects, before: Dropped, number: int, plan: DropPlan) -> Dropped:
    rows = before.rows
    if plan.sample_ids:
        ids = sorted({*read_dropped_rows(objects, before).to_pylist(), *plan.sample_ids})
        table = pa.table({"sample_id": ids}, schema=tables.DROPPED)
        rows = publish_named(objects, lambda crc: keys.dropped_rows(number, crc), table)
    return Dropped(
        teachers=tuple(sorted({*before.teachers, *plan.teachers})),
        segments=tuple(sorted({*before.segments, *plan.segments})),
        rows=rows,
    )


def _known(
    objects: StoreObjects, what: str, asked: Collection[str], held: Collection[str], gone: Collection[str]
) -> tuple[str, ...]:
    """Those that are not dropped yet, sorted; refuses names that the store never had."""
    there, dropped = set(held), set(gone)
    unknown = sorted(set(asked) - there - dropped)
    if unknown:
        more = f" ({len(unknown)} of those asked for are unknown)" if len(unknown) > 1 else ""
        few = f"; it has: {', '.join(sorted(there)) or 'none'}" if what != "row" else ""
        raise StoreError(f"{objects.uri} has no {what} {unknown[0]!r}{more}{few}")
    return tuple(sorted(set(asked) - dropped))


def _refuse_first(objects: StoreObjects, contents: Contents, segments: Collection[str]) -> None:
    first = min(contents.segments, key=lambda segment: segment.first, default=None)
    if first is not None and first.segment in segments:
        raise StoreError(
            f"segment {first.segment} of {objects.uri} cannot be dropped: it holds the probe rows by which "
            "every teacher is known again. Drop rows of it by their ids, or make another store without it"
        )


def _rows(objects: StoreObjects, contents: Contents, dropped: pa.Array) -> pa.Table:
    parts = [hide_rows(read_rows(objects, segment), dropped) for segment in contents.segments]
    return pa.concat_tables([tables.ROWS.empty_table(), *parts])


def _taken(
    objects: StoreObjects, generation: Generation, teachers: Collection[str], segments: Collection[str]
) -> tuple[int, int]:
    """Units and bytes that are of these teachers or segments."""
    commits = read_commits(objects, generation)
    of_teacher = pc.is_in(commits["teacher"], value_set=pa.array(teachers, pa.string()))
    of_segment = pc.is_in(commits["segment"], value_set=pa.array(segments, pa.string()))
    mine = commits.filter(pc.or_(of_teacher, of_segment))
    size = sum(record["size"] for records in mine["objects"].to_pylist() for record in records)
    return len(mine), size
