"""Label whatever is not labelled yet, and seal the store.

Thin, because all it knows is in the config and the store. Running it again goes on where it stopped; when
nothing is left, no teacher is even loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from softcask.pipeline.executors.base import Executor, Failure, Pool
from softcask.pipeline.executors.registry import executor_from
from softcask.pipeline.factories import add_to_path
from softcask.pipeline.label import TaskReport
from softcask.pipeline.plan import Task, Tasks, plan_tasks
from softcask.pipeline.precompute.apart import apart
from softcask.pipeline.precompute.classes import with_classes
from softcask.pipeline.precompute.codecs import (
    Settled,
    find_codecs,
    settled_codecs,
)
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.groups import Groups, group_teachers, pools
from softcask.pipeline.precompute.observer import RunObserver
from softcask.pipeline.precompute.outcome import gave_up
from softcask.pipeline.precompute.preparation import (
    pin_run_views,
    prepare_rows,
    refuse_pinned,
    teacher_manifest,
)
from softcask.pipeline.precompute.record import Totals
from softcask.pipeline.precompute.results import Progress, Summary, TeacherSummary
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import refuse_dropped
from softcask.pipeline.store.receipts import committed_codes
from softcask.pipeline.store.writing.prepare import check_root
from softcask.pipeline.store.writing.sealing import Sealing
from softcask.pipeline.teachers.checks import near_chance
from softcask.pipeline.views.options import planned_views
from softcask.pipeline.views.pinned import refuse_other_views
from softcask.storage_schemas.errors import StoreAccess
from softcask.storage_schemas.manifest import Generation, SegmentManifest


def precompute(
    config: RunConfig, *, watch: Callable[[Progress], None] = lambda _: None, force: bool = False
) -> Summary:
    """Label whatever of the transfer set is not labelled yet, and seal the store.

    Args:
        config: The run.
        watch: Called at every step, and each second while nothing else happens; by one thread at a time.
        force: Begin even if another driver is at work that wants the store for itself, or this one does.

    Raises:
        UnitsGivenUp: Units failed again and again; all others are committed and sealed.
        StoreBusy: Another driver is at work, see `ExecutorOptions.other_drivers`.
        SoftcaskError: Something cannot be used; what is committed stays, and the same call goes on from
        there.
    """
    config = with_classes(config)
    objects, executor = StoreObjects.at(config.store.uri), executor_from(config.executor)
    totals = Totals({teacher.name: teacher.num_gpus for teacher in config.teachers if teacher.num_gpus})
    others = config.executor.other_drivers
    with RunObserver(objects, executor, totals, watch, other_drivers=others, force=force) as run:
        return _precompute(config, objects, executor, run)


def _precompute(config: RunConfig, objects: StoreObjects, executor: Executor, run: RunObserver) -> Summary:
    source = config.transfer_set.open()
    add_to_path(config.python_path)
    groups = group_teachers(config.teachers, config.executor.gpu_memory_gb)
    check_root(objects, config.classes.class_names)
    names = [teacher.name for teacher in config.teachers]
    dropped = refuse_dropped(objects, names)
    settled = settled_codecs(config, objects)
    refuse_pinned(config, objects, settled)  # now rather than by a worker
    refuse_other_views(objects, config.views)
    segments = prepare_rows(config, objects, source, settled, run.step)
    segments = [segment for segment in segments if segment.segment not in dropped.segments]
    tasks = _tasks(objects, segments, groups, planned_views(config.views))
    if untried := [teacher for teacher in config.teachers if teacher.name not in settled]:
        settled |= find_codecs(config, objects, executor, untried, run.step)
    manifests = {t.name: teacher_manifest(config, t, settled[t.name]) for t in config.teachers}
    _refuse_if_full(objects, tasks, settled, config)
    if tasks and config.views is not None:
        pin_run_views(objects, config.views, tasks, segments, source)
    sealing = Sealing(objects)
    if tasks:
        mine = pools(config, groups, manifests, tasks, run.announce())
        run.label(tasks.logit_rows)
        _run(executor, mine, run, sealing)
    failures = run.totals.failures
    if failures and not run.totals.tasks:
        raise gave_up(failures, objects.uri)
    generation = sealing.finish()
    refuse_dropped(objects, names)  # while this ran
    if failures:
        raise gave_up(failures, objects.uri, generation.generation)
    return Summary(
        store=config.store.uri,
        generation=generation.generation,
        rows=sum(segment.rows - segment.quarantined for segment in segments),
        views=planned_views(config.views),
        quarantined=sum(segment.quarantined for segment in segments),
        quarantine_tables=tuple(segment.table.key for segment in segments if segment.quarantined),
        unit_rows=segments[-1].unit_rows,
        tasks=len(tasks),
        teachers={name: _summary(name, generation, run.totals, config, settled[name]) for name in manifests},
        wall_seconds=run.wall_seconds,
        workers=executor.workers if tasks else 0,
        run=run.record() if tasks else None,
        warnings=tuple(run.totals.warnings),
    )


def _summary(
    name: str, generation: Generation, totals: Totals, config: RunConfig, settled: Settled
) -> TeacherSummary:
    held = generation.teachers[name]
    return TeacherSummary(
        rows=held.rows,
        new_rows=totals.rows[name],
        units=held.units,
        labelled=held.labelled,
        correct=held.correct,
        bytes=held.bytes,
        device_seconds=totals.device_seconds[name],
        codec=settled.codec.name,
        codec_reason=str(settled.recorded.get("reason", "")),
        suspicious=near_chance(held.correct, held.labelled, len(config.classes.class_names)),
    )


def _run(
    executor: Executor,
    pools: Sequence[Pool[Task, TaskReport]],
    run: RunObserver,
    sealing: Sealing,
) -> None:
    for report in executor.run(apart(pools, run.rank())):
        if isinstance(report, Failure):
            run.failure(report)
        else:
            run.report(report)
            sealing.add(report.commits)


def _tasks(
    objects: StoreObjects,
    segments: Sequence[SegmentManifest],
    groups: Groups,
    views: Sequence[int],
) -> Tasks:
    names = {group: [member.name for member in members] for group, members in groups.items()}
    committed = {name: committed_codes(objects, name) for members in names.values() for name in members}
    return plan_tasks(segments, names, committed, views=views)


def _refuse_if_full(
    objects: StoreObjects, tasks: Tasks, settled: Mapping[str, Settled], config: RunConfig
) -> None:
    needed = sum(tasks.rows_of(name) * known.row_bytes for name, known in settled.items())
    free = objects.free_bytes()
    if free is not None and needed > free:
        raise StoreAccess(
            f"{needed / 2**20:,.1f} MiB are to be written to {objects.uri}, where {free / 2**20:,.1f} MiB "
            "are free. Free some space, or name a store elsewhere. Nothing was labelled yet."
        )
