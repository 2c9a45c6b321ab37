"""Mend what was diagnosed, as far as that needs no teacher; what does is taken out, for a run to label again.

Nothing that is whole is removed, and what is damaged stands until something whole replaces it: a unit that
must be labelled again loses its receipt and its place in the catalog, no more. Killed anywhere, the next call
goes on from what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.damage import Diagnosis, Remedy, Unit
from softcask.pipeline.store.catalog import newest_generation, read_commits
from softcask.pipeline.store.layout import unit_objects
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.store.writing.commit import unit_stats
from softcask.pipeline.store.writing.sealing import forget_pending, point_at, reseal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject, StoreNotFound
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import (
    ObjectRecord,
    SegmentManifest,
    TeacherManifest,
    UnitCommit,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was done.

    Attributes:
        restored: Objects made again from what they follow from.
        aside: Objects that were renamed to `KEY.aside`.
        uncommitted: Units (teacher, unit) that are to be labelled again.
        generation: The new generation, or None where none was needed.
    """

    restored: tuple[str, ...]
    aside: tuple[str, ...]
    uncommitted: tuple[Unit, ...]
    generation: int | None


def mend(
    objects: StoreObjects, diagnosis: Diagnosis, *, progress: Callable[[int, int], None] | None = None
) -> Mended:
    """Carry out all remedies but labelling.

    Args:
        objects: The store.
        diagnosis: From `diagnose`.
        progress: Called after each object with objects done and objects in all.

    Raises:
        SoftcaskError: Something could not be read or written; what was mended stays mended.
    """
    by_hand = ("restore", "aside", "receipt", "statistics")
    work = [each for each in diagnosis.remedies if each.action in by_hand]
    restored, failed = [], set(diagnosis.units("label"))
    aside = [each.problem.key for each in work if each.action == "aside"]
    changed = set(diagnosis.units("seal"))
    forget_pending(objects)
    if not diagnosis.rebuild:
        _drop_damaged_pointer(objects, diagnosis)
    for done, remedy in enumerate(work, start=1):
        if remedy.action == "restore" and remedy.data is not None:
            objects.replace(remedy.problem.key, remedy.data)
            restored.append(remedy.problem.key)
        elif remedy.action == "aside":
            _put_aside(objects, remedy.problem.key)
        elif remedy.unit is not None and remedy.unit not in failed:
            if _mended(objects, remedy, changed):
                restored.append(remedy.problem.key)
            else:
                failed.add(remedy.unit)
        if progress is not None:
            progress(done, len(work))
    if diagnosis.waiting:
        return Mended(restored=tuple(restored), aside=tuple(aside), uncommitted=(), generation=None)
    failed = set(filter(diagnosis.can_label, failed))
    for teacher, unit in sorted(failed):
        objects.remove(keys.commit(teacher, unit))
    number = _seal(objects, diagnosis, failed | changed, aside)
    return Mended(
        restored=tuple(restored),
        aside=tuple(aside),
        uncommitted=tuple(sorted(failed)),
        generation=number,
    )


def _seal(objects: StoreObjects, diagnosis: Diagnosis, stale: set[Unit], aside: Sequence[str]) -> int | None:
    """A generation of what stands now, if the newest says otherwise; then broken ones go."""
    generation = None
    receipts = {unit for key in aside if (unit := _unit_of_receipt(key))}
    if diagnosis.rebuild:
        generation = reseal(objects, rebuild=True)
    elif (newest := newest_generation(objects)) is not None and (stale or receipts):
        sealed = read_commits(objects, newest)
        names = set(zip(sealed["teacher"].to_pylist(), sealed["unit"].to_pylist(), strict=True))
        if names & (stale | receipts):
            generation = reseal(objects, stale=stale | receipts)
    if diagnosis.broken:
        _retire(objects, diagnosis.broken)
    if (newest := newest_generation(objects)) is not None:
        point_at(objects, newest)
    return generation.generation if generation else None


def _retire(objects: StoreObjects, last: int) -> None:
    """Take out generations up to the last broken one, from the oldest on: a newer one holds what is whole."""
    names = objects.parts("catalog")
    for number in sorted(int(name) for name in names if len(name) == 8 and name.isdigit()):
        if number <= last:
            objects.remove(keys.generation(number))


def _drop_damaged_pointer(objects: StoreObjects, diagnosis: Diagnosis) -> None:
    """Generations are found without it."""
    if any(each.problem.key == keys.CATALOG_POINTER for each in diagnosis.remedies):
        objects.remove(keys.CATALOG_POINTER)


def _put_aside(objects: StoreObjects, key: str) -> None:
    """Under a name that nobody reads; what was measured can be looked at there."""
    try:
        data = objects.read(key)
    except StoreNotFound:
        return
    objects.replace(f"{key}.aside", data)
    objects.remove(key)


def _unit_of_receipt(key: str) -> Unit | None:
    match key.split("/"):
        case ["teachers", teacher, "commits", receipt]:
            return teacher, receipt.removesuffix(".json")
    return None


def _mended(objects: StoreObjects, remedy: Remedy, changed: set[Unit]) -> bool:
    """Whether a unit's receipt or statistics could be made again from its logits."""
    if remedy.unit is None:
        return False
    try:
        sick = _Sick.of(objects, remedy.unit)
        if remedy.action == "receipt":
            return sick.mend_receipt()
        if sick.mend_statistics():
            changed.add(remedy.unit)
    except (CorruptObject, StoreNotFound):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sick:
    """A unit whose logits are whole."""

    objects: StoreObjects
    teacher: TeacherManifest
    segment: SegmentManifest
    unit: str

    @classmethod
    def of(cls, objects: StoreObjects, unit: Unit) -> _Sick:
        name, (segment, _, _) = unit[0], keys.parse_unit(unit[1])
        teacher, rows = keys.teacher_manifest(name), keys.segment_manifest(segment)
        return cls(
            objects=objects,
            teacher=TeacherManifest.from_bytes(objects.read(teacher), teacher),
            segment=SegmentManifest.from_bytes(objects.read(rows), rows),
            unit=unit[1],
        )

    def mend_receipt(self) -> bool:
        """From what the catalog knows; it must come out as it was sealed, or a teacher's pass is needed."""
        newest = newest_generation(self.objects)
        if newest is None:
            return False
        rows = read_commits(self.objects, newest).to_pylist()
        sealed = next((row for row in rows if (row["teacher"], row["unit"]) == self._name), None)
        if sealed is None:
            return False
        records = tuple(ObjectRecord.model_validate(record) for record in sealed["objects"])
        top = self._columns({record.key: record for record in records}).get("row_max")
        receipt = UnitCommit(
            teacher=self.teacher.name,
            unit=self.unit,
            fingerprint=digest(self.teacher.fingerprint),
            **{name: sealed[name] for name in ("start", "stop", "rows", "labelled", "correct")},
            row_max_range=(float(top.min()), float(top.max())) if top is not None and len(top) else None,
            objects=records,
        )
        data, key = receipt.to_bytes(), keys.commit(*self._name)
        if ObjectRecord.of(key, data).model_dump() != sealed["receipt"]:
            return False
        self.objects.replace(key, data)
        return True

    def mend_statistics(self) -> bool:
        """Whether the receipt had to change: another version of pyarrow writes other bytes."""
        key = keys.commit(*self._name)
        receipt = UnitCommit.from_bytes(self.objects.read(key), key)
        records = {record.key: record for record in receipt.objects}
        segment, view, index = keys.parse_unit(self.unit)
        stats = keys.stats_part(self.teacher.name, segment, view, index)
        columns = self._columns(records)
        table = unit_stats(self.objects, self.teacher, self._rows(), columns)
        data = tables.to_bytes(table)
        self.objects.replace(stats, data)
        record = ObjectRecord.of(stats, data)
        if records.get(stats) == record:
            return False
        mended = tuple(record if each.key == stats else each for each in receipt.objects)
        self.objects.replace(key, receipt.model_copy(update={"objects": mended}).to_bytes())
        return True

    @property
    def _name(self) -> Unit:
        return self.teacher.name, self.unit

    def _rows(self) -> UnitRows:
        _, view, index = keys.parse_unit(self.unit)
        table: pa.Table = read_rows(self.objects, self.segment)
        return UnitRows.of(self.segment, table, view, index)

    def _columns(self, records: dict[str, ObjectRecord]) -> dict[str, NDArray[Any]]:
        """Values of the readable rows."""
        _, view, index = keys.parse_unit(self.unit)
        readable = self._rows().readable
        columns: dict[str, NDArray[Any]] = {}
        for part in unit_objects(self.teacher, self.segment, view, index):
            if part.key not in records:
                raise CorruptObject(f"the receipt of {self.unit} does not record {part.key}")
            values = part.decode(self.objects.read_recorded(records[part.key]))
            columns |= {name: column[readable] for name, column in values.items()}
        return columns
