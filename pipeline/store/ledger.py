"""What a store's logits cost, as its runs recorded it, and whose passes stand behind an entry.

A ledger counts what runs measured. What a worker was computing when it was killed or its unit failed was
never told, and of a unit that was run twice because it straggled only the pass that ended first is known:
both are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import Run, read_runs
from softcask.storage_schemas import keys
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import TeacherManifest
from softcask.storage_schemas.runs import TeacherReuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What all runs spent on one teacher.

    Attributes:
        rows: Rows that they labelled and committed.
        units: Units likewise.
        device_seconds: What its forward passes held devices for.
        repeated: Of these, what went into units that another driver had committed meanwhile.
        trials: Beside these, what went into samples to choose a codec by.
        runs: Runs that it had a part in.
    """

    rows: int = 0
    units: int = 0
    device_seconds: float = 0.0
    repeated: float = 0.0
    trials: float = 0.0
    runs: int = 0

    @property
    def seconds_a_row(self) -> float | None:
        """Device-seconds that one pass over one row takes; None where no row was labelled."""
        return max(self.device_seconds - self.repeated, 0.0) / self.rows if self.rows else None

    def plus(self, run: Run, teacher: str) -> Spent:
        """With what one run spent; of one that was killed, with what it said last."""
        told: Any = run.record or run.progress
        return Spent(
            rows=self.rows + told.rows.get(teacher, 0),
            units=self.units + told.units.get(teacher, 0),
            device_seconds=self.device_seconds + told.device_seconds.get(teacher, 0.0),
            repeated=self.repeated + told.repeated.get(teacher, 0.0),
            trials=self.trials + (run.record.trials.get(teacher, 0.0) if run.record else 0.0),
            runs=self.runs + 1,
        )


def spent_by_teacher(objects: StoreObjects) -> dict[str, Spent]:
    """What a store's runs spent, by the names that they gave to teachers.

    Raises:
        StoreAccess: The store's runs cannot be listed; one that cannot be read is left out.
    """
    found: defaultdict[str, Spent] = defaultdict(Spent)
    for run in read_runs(objects, records=True):
        told: Any = run.record or run.progress
        trials = run.record.trials if run.record else {}
        for teacher in {*told.device_seconds, *told.rows, *trials} if told else ():
            found[teacher] = found[teacher].plus(run, teacher)
    return dict(found)


def reuse(
    teachers: Mapping[str, TeacherManifest],
    entries: Sequence[str],
    spent: Mapping[str, Spent],
    rows: int,
) -> tuple[TeacherReuse, ...]:
    """Whose passes someone uses who reads these entries of a store: each teacher once, however often read.

    Args:
        teachers: The store's entries by name.
        entries: Those that are read.
        spent: What their runs spent.
        rows: Rows that are read.
    """
    passes: dict[str, str] = {}
    through: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for name, fingerprint in _passes(teachers, entry, set()).items():
            passes.setdefault(name, fingerprint)
            through[name].append(entry)
    return tuple(
        TeacherReuse(
            teacher=name,
            fingerprint=fingerprint,
            rows=rows,
            seconds_a_row=spent[name].seconds_a_row if name in spent else None,
            through=tuple(through[name]),
        )
        for name, fingerprint in sorted(passes.items())
    )


def store_identity(objects: StoreObjects) -> str:
    """By what a store is known again wherever it lies: its classes and its first rows."""
    first = next(iter(objects.parts("transfer_set")), None)
    parts = [keys.ROOT, *([keys.segment_manifest(first)] if first else [])]
    return digest([(objects.read_if_present(key) or b"").decode("utf-8", "replace") for key in parts])


def _passes(teachers: Mapping[str, TeacherManifest], entry: str, seen: set[str]) -> dict[str, str]:
    """Names of the teachers that were run for an entry, with their fingerprints."""
    manifest = teachers.get(entry)
    if manifest is None or entry in seen:
        return {}
    seen.add(entry)
    sources = manifest.fingerprint.get("derived_from") if manifest.kind == "derived" else None
    if not isinstance(sources, list):
        return {entry: digest(manifest.fingerprint)}
    found: dict[str, str] = {}
    for source in sources:
        name = source.get("teacher") if isinstance(source, dict) else None
        if isinstance(name, str) and keys.is_name(name):
            # One that was dropped since is known by what the entry says of it.
            found |= _passes(teachers, name, seen) or {name: str(source.get("fingerprint", ""))}
    return found
