"""The whole job: a run's config in, a sealed store out.

Thin, because all it knows is in the config and the store. Running it again goes on where it
stopped; when nothing is left, no teacher is even loaded.
"""

from __future__ import annotations

import math
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from softcask.pipeline.config.run import RunConfig
from softcask.pipeline.executors.base import Executor, Pool
from softcask.pipeline.executors.registry import executor_from
from softcask.pipeline.factories import add_to_path
from softcask.pipeline.label import LabelRecipe, TaskReport
from softcask.pipeline.pinning import is_pinned
from softcask.pipeline.plan import Task, choose_unit_rows, plan_tasks
from softcask.pipeline.store.catalog import seal
from softcask.pipeline.store.commit import committed_units
from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.prepare import prepare_root, prepare_segment
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.checks import near_chance
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.registry import codec_named
from softcask.storage_schemas.errors import ConfigError, StoreAccess
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.manifest import RunRecord, SegmentManifest, TeacherManifest

SEGMENT = keys.segment_name(0)
_STATS_BYTES = 64
_VERSIONED = ("softcask", "torch", "numpy", "pyarrow", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a run, for whoever watches.

    Attributes:
        stage: `index` or `label`.
        done: Rows done of this stage; of `label`, rows times teachers.
        total: Rows of this stage.
        task: The task that ended, in `label`.
        seconds: Time by stage of that task.
    """

    stage: str
    done: int
    total: int
    task: Task | None = None
    seconds: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSummary:
    """What the store holds of one teacher, and what this run added.

    Attributes:
        rows: Rows with logits, in all.
        new_rows: Rows labelled by this run.
        units: Units committed, in all.
        labelled: Rows with a label among `rows`.
        correct: Labelled rows whose top-1 is their label.
        bytes: Bytes of all its units' objects.
        device_seconds: What this run's forward passes took.
        suspicious: Whether its top-1 looks like guessing.
    """

    rows: int
    new_rows: int
    units: int
    labelled: int
    correct: int
    bytes: int
    device_seconds: float
    suspicious: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        store: URI of the store.
        generation: Sealed generation that holds everything.
        rows: Readable rows of the transfer set.
        quarantined: Rows that could not be read.
        unit_rows: Rows a unit.
        tasks: Tasks that this run did.
        teachers: By name, those of the config.
        wall_seconds: From start to end.
        workers: Workers used.
        run: Name of the record under `runs/`, or None where nothing was done.
    """

    store: str
    generation: int
    rows: int
    quarantined: int
    unit_rows: int
    tasks: int
    teachers: dict[str, TeacherSummary]
    wall_seconds: float
    workers: int
    run: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPlan:
    """What is to be done for one teacher.

    Attributes:
        units: Units in all.
        committed: Units that are committed.
        rows: Rows that are still to be labelled.
        bytes: Estimated bytes they will take.
        group: The workers it lives in.
    """

    units: int
    committed: int
    rows: int
    bytes: int
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `precompute` would do.

    Attributes:
        store: URI of the store.
        rows: Rows of the transfer set.
        unit_rows: Rows a unit.
        teachers: By name.
        free_bytes: Free space where the store lies; None where that cannot be told.
    """

    store: str
    rows: int
    unit_rows: int
    teachers: dict[str, TeacherPlan]
    free_bytes: int | None


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
    prepare_root(objects, config.classes.class_names)
    for manifest in manifests.values():
        is_pinned(objects, manifest)  # refused now rather than by a worker
    segment = _prepare_segment(config, objects, source, watch)
    tasks = _tasks(objects, [segment], groups)
    _refuse_if_full(objects, tasks, manifests)
    executor = executor_from(config.executor)
    totals = _Totals()
    if tasks:
        _run(executor, _pools(config, groups, manifests, tasks), totals, watch)
    generation = seal(objects)
    wall = time.perf_counter() - clock
    run = _record_run(objects, executor, totals, started, wall) if tasks else None
    summaries = {}
    for teacher in config.teachers:
        held = generation.teachers[teacher.name]
        summaries[teacher.name] = TeacherSummary(
            rows=held.rows,
            new_rows=totals.rows[teacher.name],
            units=held.units,
            labelled=held.labelled,
            correct=held.correct,
            bytes=held.bytes,
            device_seconds=totals.seconds[f"forward:{teacher.name}"],
            suspicious=near_chance(held.correct, held.labelled, len(config.classes.class_names)),
        )
    return Summary(
        store=config.store.uri,
        generation=generation.generation,
        rows=segment.rows - segment.quarantined,
        quarantined=segment.quarantined,
        unit_rows=segment.unit_rows,
        tasks=len(tasks),
        teachers=summaries,
        wall_seconds=wall,
        workers=executor.workers if tasks else 0,
        run=run,
    )


def plan(config: RunConfig) -> Plan:
    """What `precompute` would do; nothing is written, and no row is read.

    Raises:
        SoftcaskError: The transfer set or the store cannot be used.
    """
    objects, source = StoreObjects.at(config.store.uri), config.transfer_set.open()
    key = keys.segment_manifest(SEGMENT)
    standing = objects.read_if_present(key)
    rows = len(source)
    unit_rows = config.store.unit_rows or _choose_unit_rows(config, rows)
    if standing is not None:
        segment = SegmentManifest.from_bytes(standing, key)
        rows, unit_rows = segment.rows, segment.unit_rows
    units = -(-rows // unit_rows)
    groups = group_teachers(config.teachers)
    plans = {}
    for group, members in groups.items():
        for teacher in members:
            add_to_path(config.python_path)
            done = len(committed_units(objects, teacher.name))
            left = max(0, rows - done * unit_rows)
            plans[teacher.name] = TeacherPlan(
                units=units, committed=done, rows=left, bytes=left * _row_bytes(config), group=group
            )
    return Plan(
        store=config.store.uri,
        rows=rows,
        unit_rows=unit_rows,
        teachers={teacher.name: plans[teacher.name] for teacher in config.teachers},
        free_bytes=objects.free_bytes(),
    )


def group_teachers(teachers: Sequence[TeacherOptions]) -> dict[str, tuple[TeacherOptions, ...]]:
    """Teachers that live in one worker: those of one stated group, or with equal needs.

    Raises:
        ConfigError: Teachers of one stated group have other needs or another batch size.
    """
    groups: dict[str, list[TeacherOptions]] = defaultdict(list)
    for teacher in teachers:
        needs = f"{teacher.num_cpus} CPU, {teacher.num_gpus:g} GPU, batches of {teacher.batch_size}"
        groups[f"group {teacher.group!r}" if teacher.group is not None else needs].append(teacher)
    for name, members in groups.items():
        for field in ("batch_size", "num_cpus", "num_gpus"):
            values = {getattr(member, field) for member in members}
            if len(values) > 1:
                raise ConfigError(
                    f"the teachers of {name} ({', '.join(member.name for member in members)}) share a "
                    f"worker and its batches, but have {field} {sorted(values)}; give them one value, "
                    "or other groups"
                )
    return {name: tuple(members) for name, members in groups.items()}


class _Totals:
    """What this run did, summed over its tasks."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.devices: set[str] = set()

    def add(self, report: TaskReport) -> None:
        self.rows.update(report.rows)
        self.units.update(report.rows.keys())
        self.devices.add(report.device)
        for stage, seconds in report.seconds.items():
            self.seconds[stage] += seconds


def _run(
    executor: Executor,
    pools: Sequence[Pool[Task, TaskReport]],
    totals: _Totals,
    watch: Callable[[Progress], None],
) -> None:
    total, done = sum(task.rows * len(task.teachers) for pool in pools for task in pool.tasks), 0
    for report in executor.run(pools):
        totals.add(report)
        done += report.task.rows * len(report.task.teachers)
        watch(Progress(stage="label", done=done, total=total, task=report.task, seconds=report.seconds))


def _pools(
    config: RunConfig,
    groups: Mapping[str, tuple[TeacherOptions, ...]],
    manifests: Mapping[str, TeacherManifest],
    tasks: Sequence[Task],
) -> list[Pool[Task, TaskReport]]:
    """A pool a group, with the teachers that have something to do."""
    pools = []
    for group, members in groups.items():
        mine = [task for task in tasks if task.group == group]
        busy = {name for task in mine for name in task.teachers}
        teachers = tuple(member for member in members if member.name in busy)
        if teachers:
            recipe = LabelRecipe(
                store_uri=config.store.uri,
                transfer_set=config.transfer_set,
                teachers=teachers,
                manifests=tuple(manifests[teacher.name] for teacher in teachers),
                python_path=config.python_path,
            )
            pools.append(
                Pool(
                    name=", ".join(teacher.name for teacher in teachers),
                    recipe=recipe,
                    tasks=mine,
                    num_cpus=teachers[0].num_cpus,
                    num_gpus=teachers[0].num_gpus,
                )
            )
    return pools


def _tasks(
    objects: StoreObjects,
    segments: Sequence[SegmentManifest],
    groups: Mapping[str, tuple[TeacherOptions, ...]],
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

    return prepare_segment(
        objects,
        SEGMENT,
        source=source.describe(),
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        unit_rows=config.store.unit_rows,
        index=lambda: index_rows(
            source,
            num_classes=len(config.classes.class_names),
            max_quarantined=config.transfer_set.max_quarantined,
            progress=step,
        ),
        choose_unit_rows=lambda rows: _choose_unit_rows(config, rows),
    )


def _choose_unit_rows(config: RunConfig, rows: int) -> int:
    batch_size = math.lcm(*(teacher.batch_size for teacher in config.teachers))
    if batch_size > 4096:  # batches that share no small multiple need not divide the unit
        batch_size = max(teacher.batch_size for teacher in config.teachers)
    return choose_unit_rows(rows=rows, row_bytes=_row_bytes(config), batch_size=batch_size)


def _row_bytes(config: RunConfig) -> int:
    codec = codec_named(config.store.codec)()
    columns = codec.columns(len(config.classes.class_names))
    return sum(column.row_bytes for column in columns) + _STATS_BYTES


def _teacher_manifest(config: RunConfig, teacher: TeacherOptions) -> TeacherManifest:
    return TeacherManifest(
        name=teacher.name,
        kind=teacher.kind,
        role=teacher.role,
        num_classes=len(config.classes.class_names),
        batch_size=teacher.batch_size,
        codec=codec_named(config.store.codec)().to_spec(),
        fingerprint=canonical(teacher.fingerprint_fields()),
        recorded={"versions": _versions(), "source": teacher.source_digest(), "num_cpus": teacher.num_cpus},
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
            f"{needed / 2**30:.2f} GiB are to be written to {objects.uri}, where {free / 2**30:.2f} GiB are "
            "free. Free some space, or name a store elsewhere. Nothing was labelled yet."
        )


def _record_run(
    objects: StoreObjects, executor: Executor, totals: _Totals, started: datetime, wall: float
) -> str:
    forward = "forward:"
    stamp = f"{started:%Y%m%dT%H%M%S}-{started.microsecond:06d}"
    record = RunRecord(
        run=stamp,
        started=started.isoformat(),
        wall_seconds=wall,
        executor=executor.name,
        workers=executor.workers,
        host=platform.node(),
        versions=_versions(),
        units=dict(totals.units),
        rows=dict(totals.rows),
        device_seconds={
            k.removeprefix(forward): v for k, v in totals.seconds.items() if k.startswith(forward)
        },
        stage_seconds={k: v for k, v in totals.seconds.items() if not k.startswith(forward)},
        devices=tuple(sorted(totals.devices)),
    )
    objects.publish(keys.run_record(stamp), record.to_bytes())
    return stamp


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
