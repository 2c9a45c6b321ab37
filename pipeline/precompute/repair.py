"""Repair a store: mend what follows from something whole, label again exactly what does not.

It stands here, above the store, because what is lost of logits only their teacher can give again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from softcask.pipeline.plan import plan_tasks
from softcask.pipeline.precompute.candidates import Candidates
from softcask.pipeline.precompute.classes import with_classes
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.damage import Diagnosis, Remedy, Unit, diagnose
from softcask.pipeline.store.care.mending import mend
from softcask.pipeline.store.care.verify import VerifyReport, verify
from softcask.pipeline.store.catalog import generation_numbers, newest_generation, read_contents
from softcask.pipeline.store.receipts import committed_codes
from softcask.pipeline.store.writing.sealing import seal
from softcask.pipeline.views.options import planned_views
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreError
from softcask.storage_schemas.manifest import Generation

_ROUNDS = 4
"""What is mended may show what it hid: rows their units, a manifest its arrays."""

_GROUND = (keys.ROOT, "/segment.json", "/teacher.json", "/probe.parquet", "/zarr.json", ".npy")
"""How keys end of what units are judged by; what views are pinned to is ground, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What was wrong, what was done, what is left.

    Attributes:
        found: Remedies of the first look, one a problem.
        restored: Objects made again without a teacher.
        aside: Objects renamed to `KEY.aside`.
        relabelled: Units (teacher, unit) that were labelled again, or are to be with `check`.
        left: Problems that stand, each with what to do about it; none where the store is sound.
        generation: The newest generation at the end; 0 where nothing is sealed.
        verified: Objects read in the last look.
        forgotten: What would come back because the catalog is lost as a whole; empty where it is not.
    """

    found: tuple[Remedy, ...]
    restored: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    relabelled: tuple[Unit, ...] = ()
    left: tuple[Remedy, ...] = ()
    generation: int = 0
    verified: int = 0
    forgotten: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who wants to see it happen.

    Attributes:
        verify: As `pipeline.store.care.verify.verify` calls it.
        mend: Called with objects done and in all.
        label: As `precompute` calls it.
    """

    verify: Callable[[int, int, int], None] = lambda *_: None
    mend: Callable[[int, int], None] = lambda *_: None
    label: Callable[[Progress], None] = lambda _: None


def repair(
    config: RunConfig, *, check: bool = False, forget_drops: bool = False, watch: Watch | None = None
) -> RepairReport:
    """Make a store sound again, with the teachers and rows of the run that made it.

    Args:
        config: The run.
        check: Only look.
        forget_drops: Seal all that stands where nothing says any more what was dropped.
        watch: Whom to show it.

    Raises:
        StoreError: The catalog is lost as a whole, and `forget_drops` was not given.
        SoftcaskError: Rows, teachers or the store cannot be used; what was mended stays so, and the same call
            goes on from there.
    """
    config = with_classes(config)
    watch = watch or Watch()
    objects = StoreObjects.at(config.store.uri)
    report, diagnosis = _look(config, objects, watch)
    forgotten = _forgotten(objects)
    if forgotten and not (check or forget_drops):
        raise StoreError(forgotten)
    first = diagnosis.remedies
    restored: list[str] = []
    aside: list[str] = []
    relabelled: set[Unit] = set()
    for _ in range(0 if check else _ROUNDS):
        if _blocking(diagnosis):
            break
        if diagnosis.remedies:
            mended = mend(objects, diagnosis, progress=watch.mend)
            restored += mended.restored
            aside += mended.aside
        missing = [] if diagnosis.waiting else _unlabelled(config, objects)
        if diagnosis.idle and not missing:
            if not diagnosis.remedies:
                seal(objects)  # one that was killed may have labelled and not sealed
            break
        relabelled |= set(missing)
        _label(config, missing, watch)
        report, diagnosis = _look(config, objects, watch)
    return RepairReport(
        found=first,
        restored=tuple(restored),
        aside=tuple(aside),
        relabelled=tuple(sorted({*relabelled, *(diagnosis.units("label") if check else ())})),
        left=diagnosis.remedies,
        generation=_generation(objects),
        verified=report.objects,
        forgotten=forgotten,
    )


def _forgotten(objects: StoreObjects) -> str:
    """What to say where units are committed, and no generation can be read that says what was dropped."""
    for number in generation_numbers(objects):
        key = keys.generation(number)
        with contextlib.suppress(SoftcaskError):
            Generation.from_bytes(objects.read(key), key)
            return ""
    units = {name: len(committed_codes(objects, name)) for name in objects.parts("teachers")}
    found = ", ".join(f"{count} of {name!r}" for name, count in units.items() if count)
    if not found:
        return ""
    return (
        f"no generation of the catalog of {objects.uri} can be read, so that nothing says what was dropped "
        f"from it. Units that stand: {found}. Put the folder catalog back from a copy of the store; where no "
        "precompute has finished on it yet, run that; or seal all that stands with --forget-drops (what was "
        "dropped comes back, and can be dropped again)"
    )


def _generation(objects: StoreObjects) -> int:
    try:
        newest = newest_generation(objects)
    except CorruptObject:
        return 0
    return newest.generation if newest else 0


def _look(config: RunConfig, objects: StoreObjects, watch: Watch) -> tuple[VerifyReport, Diagnosis]:
    report = verify(objects.uri, progress=watch.verify)
    names = frozenset(teacher.name for teacher in config.teachers)
    candidates = Candidates(config, objects)
    views = frozenset(planned_views(config.views))
    return report, diagnose(objects, report.problems, candidates.of, labellers=names, views=views)


def _blocking(diagnosis: Diagnosis) -> bool:
    """Whether something is lost on which everything else rests; nothing is changed before it is back."""
    return any(
        each.problem.key.endswith(_GROUND)
        or keys.view_number(each.problem.key) is not None
        or each.problem.kind == "unread"
        for each in diagnosis.remedies
        if each.action == "none"
    )


def _unlabelled(config: RunConfig, objects: StoreObjects) -> list[Unit]:
    """Units without logits, of teachers of this run that the store has."""
    newest = newest_generation(objects)
    contents = read_contents(objects, newest.dropped if newest else None)
    names = [teacher.name for teacher in config.teachers if teacher.name in contents.teachers]
    committed = {name: committed_codes(objects, name) for name in names}
    groups, views = {name: [name] for name in names}, planned_views(config.views)
    tasks = plan_tasks(contents.segments, groups, committed, views=views)
    return [(task.group, task.unit) for task in tasks]


def _label(config: RunConfig, units: list[Unit], watch: Watch) -> None:
    names = {name for name, _ in units}
    if names:
        teachers = tuple(teacher for teacher in config.teachers if teacher.name in names)
        precompute(config.model_copy(update={"teachers": teachers}), watch=watch.label)
