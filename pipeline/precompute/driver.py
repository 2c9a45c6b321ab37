"""Label whatever is not labelled yet, and seal the store.

Thin, because all it knows is in the config and the store. Running it again goes on where it stopped; when
nothing is left, no teacher is even loaded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from softcask.pipeline.executors.base import Executor, Pool
from softcask.pipeline.executors.registry import executor_from
from softcask.pipeline.factories import add_to_path
from softcask.pipeline.label import TaskReport
from softcask.pipeline.pinning import is_pinned
from softcask.pipeline.plan import Task, choose_unit_rows, plan_tasks
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.groups import Groups, group_teachers, pools
from softcask.pipeline.precompute.record import Totals, record_run, versions
from softcask.pipeline.precompute.results import Plan, Progress, Summary, TeacherPlan, TeacherSummary
from softcask.pipeline.store.commit import committed_units
from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.prepare import check_root, prepare_root, prepare_segment
from softcask.pipeline.store.sealing import seal
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.checks import near_chance
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.codecs.registry import codec_named
from softcask.storage_schemas.errors import QuarantineExceeded, SoftcaskError, StoreAccess
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.manifest import Generation, SegmentManifest, TeacherManifest

SEGMENT = keys.segment_name(0)
_STATS_BYTES = 64


def precompute(config: RunConfig, *, watch: Callable[[Progress], None] = lambda _: None) -> Summary:
    """Label whatever of the transfer set is not labelled yet, and seal the store.

    Args:
        config: The run.
        watch: Called at every step.

    Raises:
        SoftcaskError: Something cannot be used; what is committed stays, and the same call goes on from
        there.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    objects, source = StoreObjects.at(config.store.uri), config.transfer_set.open()
    add_to_path(config.python_path)
    groups = group_teachers(config.teachers)
    manifests = {teacher.name: _teacher_manifest(config, teacher) for teacher in config.teachers}
    check_root(objects, config.classes.class_names)
    for manifest in manifests.values():
        is_pinned(objects, manifest)  # refused now rather than by a worker
    segment = _prepare_segment(config, objects, source, watch)
    _refuse_quarantined(objects, segment, config)
    tasks = _tasks(objects, [segment], groups)
    _refuse_if_full(objects, tasks, manifests)
    executor = executor_from(config.executor)
    totals = Totals()
    try:
        if tasks:
            _run(executor, pools(config, groups, manifests, tasks), totals, watch)
        generation = seal(objects)
    except BaseException as error:
        if totals.tasks:
            _record_failure(error, objects, executor, totals, started, time.perf_counter() - clock)
        raise
    wall = time.perf_counter() - clock
    run = record_run(objects, executor, totals, started, wall) if tasks else None
    return Summary(
        store=config.store.uri,
        generation=generation.generation,
        rows=segment.rows - segment.quarantined,
        quarantined=segment.quarantined,
        unit_rows=segment.unit_rows,
        tasks=len(tasks),
        teachers={name: _summary(name, generation, totals, config) for name in manifests},
        wall_seconds=wall,
        workers=executor.workers if tasks else 0,
        run=run,
    )


def plan(config: RunConfig) -> Plan:
    """What `precompute` would do; nothing is written, and no row is read.

    Raises:
        SoftcaskError: The transfer set, the store or a teacher's name in it cannot be used.
    """
    objects, source = StoreObjects.at(config.store.uri), config.transfer_set.open()
    add_to_path(config.python_path)
    check_root(objects, config.classes.class_names)
    key = keys.segment_manifest(SEGMENT)
    rows = len(source)
    unit_rows = config.store.unit_rows or _choose_unit_rows(config, rows)
    if (standing := objects.read_if_present(key)) is not None:
        segment = SegmentManifest.from_bytes(standing, key)
        _refuse_quarantined(objects, segment, config)
        rows, unit_rows = segment.rows, segment.unit_rows
    group_of = {t.name: name for name, members in group_teachers(config.teachers).items() for t in members}
    plans = {}
    for teacher in config.teachers:
        is_pinned(objects, _teacher_manifest(config, teacher))
        committed = committed_units(objects, teacher.name)
        units = {keys.unit_name(SEGMENT, 0, index): index for index in range(-(-rows // unit_rows))}
        left = [index for unit, index in units.items() if unit not in committed]
        left_rows = sum(min(unit_rows, rows - index * unit_rows) for index in left)
        plans[teacher.name] = TeacherPlan(
            units=len(units),
            committed=len(units) - len(left),
            rows=left_rows,
            bytes=left_rows * _row_bytes(config),
            group=group_of[teacher.name],
        )
    return Plan(
        store=config.store.uri,
        rows=rows,
        unit_rows=unit_rows,
        teachers=plans,
        free_bytes=objects.free_bytes(),
    )


def _summary(name: str, generation: Generation, totals: Totals, config: RunConfig) -> TeacherSummary:
    held = generation.teachers[name]
    return TeacherSummary(
        rows=held.rows,
        new_rows=totals.rows[name],
        units=held.units,
        labelled=held.labelled,
        correct=held.correct,
        bytes=held.bytes,
        device_seconds=totals.seconds[f"forward:{name}"],
        suspicious=near_chance(held.correct, held.labelled, len(config.classes.class_names)),
    )


def _run(
    executor: Executor,
    pools: Sequence[Pool[Task, TaskReport]],
    totals: Totals,
    watch: Callable[[Progress], None],
) -> None:
    total, done = sum(task.rows * len(task.teachers) for pool in pools for task in pool.tasks), 0
    for report in executor.run(pools):
        totals.add(report)
        done += report.task.rows * len(report.task.teachers)
        watch(Progress(stage="label", done=done, total=total, task=report.task, seconds=report.seconds))


def _record_failure(
    error: BaseException,
    objects: StoreObjects,
    executor: Executor,
    totals: Totals,
    started: datetime,
    wall: float,
) -> None:
    """What was done before a run ended early cost device time, too; `error` stays what is raised."""
    try:
        record_run(objects, executor, totals, started, wall)
    except SoftcaskError as other:
        error.add_note(f"Nor could a record of this run be written: {other}")


def _tasks(
    objects: StoreObjects,
    segments: Sequence[SegmentManifest],
    groups: Groups,
) -> list[Task]:
    names = {group: [member.name for member in members] for group, members in groups.items()}
    committed = {name: committed_units(objects, name) for members in names.values() for name in members}
    return plan_tasks(segments, names, committed)


def _prepare_segment(
    config: RunConfig, objects: StoreObjects, source: TransferSet, watch: Callable[[Progress], None]
) -> SegmentManifest:
    read = 0

    def step(rows: int) -> None:
        nonlocal read
        read += rows
        watch(Progress(stage="index", done=read, total=len(source)))

    def index() -> pa.Table:
        table = index_rows(
            source,
            num_classes=len(config.classes.class_names),
            max_quarantined=config.transfer_set.max_quarantined,
            progress=step,
        )
        # Only now: rows that do not fit the classes leave no trace.
        prepare_root(objects, config.classes.class_names)
        return table

    return prepare_segment(
        objects,
        SEGMENT,
        source=source.describe(),
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        unit_rows=config.store.unit_rows,
        index=index,
        choose_unit_rows=lambda rows: _choose_unit_rows(config, rows),
        columns=_columns(config),
    )


def _refuse_quarantined(objects: StoreObjects, segment: SegmentManifest, config: RunConfig) -> None:
    """The bound holds for rows that an earlier run indexed under another one, too."""
    most = config.transfer_set.max_quarantined
    if segment.quarantined > most * segment.rows:
        raise QuarantineExceeded(
            f"{segment.quarantined} of {segment.rows} rows ({segment.quarantined / segment.rows:.2%}) could "
            f"not be read when {objects.uri} was begun; expected at most {most:.2%}; repair them and name "
            "another store, or raise transfer_set.max_quarantined"
        )


def _choose_unit_rows(config: RunConfig, rows: int) -> int:
    batch_size = math.lcm(*(teacher.batch_size for teacher in config.teachers))
    if batch_size > 4096:  # batches that share no small multiple need not divide the unit
        batch_size = max(teacher.batch_size for teacher in config.teachers)
    return choose_unit_rows(rows=rows, row_bytes=_row_bytes(config), batch_size=batch_size)


def _columns(config: RunConfig) -> tuple[Column, ...]:
    return codec_named(config.store.codec)().columns(len(config.classes.class_names))


def _row_bytes(config: RunConfig) -> int:
    return sum(column.row_bytes for column in _columns(config)) + _STATS_BYTES


def _teacher_manifest(config: RunConfig, teacher: TeacherOptions) -> TeacherManifest:
    return TeacherManifest(
        name=teacher.name,
        kind=teacher.kind,
        role=teacher.role,
        num_classes=len(config.classes.class_names),
        batch_size=teacher.batch_size,
        codec=codec_named(config.store.codec)().to_spec(),
        fingerprint=canonical(teacher.fingerprint_fields()),
        recorded={"versions": versions(), "source": teacher.source_digest(), "num_cpus": teacher.num_cpus},
    )


def _refuse_if_full(
    objects: StoreObjects, tasks: Sequence[Task], manifests: Mapping[str, TeacherManifest]
) -> None:
    needed = 0
    for name, manifest in manifests.items():
        rows = sum(task.rows for task in tasks if name in task.teachers)
        columns = codec_named(manifest.codec.name)().columns(manifest.num_classes)
        needed += rows * (sum(column.row_bytes for column in columns) + _STATS_BYTES)
    free = objects.free_bytes()
    if free is not None and needed > free:
        raise StoreAccess(
            f"{needed / 2**20:,.1f} MiB are to be written to {objects.uri}, where {free / 2**20:,.1f} MiB "
            "are free. Free some space, or name a store elsewhere. Nothing was labelled yet."
        )
