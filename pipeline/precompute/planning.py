"""What `precompute` would do, before it costs anything; or at the cost of a sample, which codec suits."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from softcask.pipeline.codec_choice.worker import TrialReport
from softcask.pipeline.executors.registry import executor_from
from softcask.pipeline.factories import add_to_path
from softcask.pipeline.precompute.classes import with_classes
from softcask.pipeline.precompute.codecs import (
    STATS_BYTES,
    Settled,
    estimated_row_bytes,
    run_trials,
    settled_codecs,
)
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.groups import group_teachers
from softcask.pipeline.precompute.preparation import (
    next_segment,
    refuse_pinned,
    refuse_quarantined,
    rows_a_unit,
    standing_segments,
)
from softcask.pipeline.precompute.results import Plan, Progress, TeacherPlan
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import refuse_dropped
from softcask.pipeline.store.receipts import committed_units
from softcask.pipeline.store.writing.prepare import check_root
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import Dropped


def plan(
    config: RunConfig, *, trials: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Plan:
    """What `precompute` would do; nothing is written.

    Args:
        config: The run.
        trials: Whether to run each teacher on a sample and try every codec; without, no row is read.
        watch: Called at every step.

    Raises:
        SoftcaskError: The transfer set, the store or a teacher's name in it cannot be used.
    """
    config = with_classes(config)
    objects, source = StoreObjects.at(config.store.uri), config.transfer_set.open()
    add_to_path(config.python_path)
    check_root(objects, config.classes.class_names)
    settled = settled_codecs(config, objects)
    refuse_pinned(config, objects, settled)
    dropped = refuse_dropped(objects, settled)
    rows, spans = _spans(config, objects, settled, dropped, len(source))
    committed = {teacher.name: committed_units(objects, teacher.name) for teacher in config.teachers}
    busy = [teacher for teacher in config.teachers if not spans.keys() <= committed[teacher.name]]
    reports = _reports(config, busy, watch) if trials else {}
    groups = group_teachers(config.teachers, config.executor.gpu_memory_gb)
    group_of = {member.name: name for name, members in groups.items() for member in members}
    return Plan(
        store=config.store.uri,
        rows=rows,
        unit_rows=max(spans.values(), default=0),
        teachers={
            name: _teacher_plan(config, settled, spans, done, reports.get(name), name, group_of[name])
            for name, done in committed.items()
        },
        free_bytes=objects.free_bytes(),
    )


def _reports(
    config: RunConfig, teachers: Sequence[TeacherOptions], watch: Callable[[Progress], None]
) -> dict[str, TrialReport]:
    request = config.store.codec.resolved(len(config.classes.class_names))
    found = run_trials(config, executor_from(config.executor), teachers, request, watch, publish=False)
    return {report.teacher: report for report in found}


def _teacher_plan(
    config: RunConfig,
    settled: Mapping[str, Settled],
    spans: Mapping[str, int],
    committed: Container[str],
    report: TrialReport | None,
    name: str,
    group: str,
) -> TeacherPlan:
    left = [rows for unit, rows in spans.items() if unit not in committed]
    return TeacherPlan(
        units=len(spans),
        committed=len(spans) - len(left),
        rows=sum(left),
        bytes=int(sum(left) * _planned_row_bytes(config, settled, report, name)),
        group=group,
        codec=settled[name].codec.name if name in settled else report.kept_by if report else "",
        chosen=report.chosen if report and name not in settled else "",
        unmet=report is not None and name not in settled and not report.chosen,
        trials=report.trials if report else (),
        reason=report.reason if report else "",
        seconds=sum(left) * report.seconds_a_row if report else None,
    )


def _spans(
    config: RunConfig, objects: StoreObjects, settled: Mapping[str, Settled], dropped: Dropped, rows: int
) -> tuple[int, dict[str, int]]:
    """Rows of the transfer set, and of each unit: of the segments that stand, and of rows behind them."""
    spans, first = {}, 0
    segments = standing_segments(objects)
    for segment in segments:
        refuse_quarantined(objects, segment, config)
        for index in range(segment.units if segment.segment not in dropped.segments else 0):
            start, stop = segment.unit_range(index)
            spans[keys.unit_name(segment.segment, 0, index)] = stop - start
        first = segment.first + segment.rows
    unit_rows = config.store.unit_rows or rows_a_unit(config, settled, rows - first) if rows > first else 1
    for index, start in enumerate(range(first, rows, unit_rows)):
        name = keys.unit_name(next_segment(segments), 0, index)
        spans[name] = min(unit_rows, rows - start)
    return max(rows, first), spans


def _planned_row_bytes(
    config: RunConfig, settled: Mapping[str, Settled], report: TrialReport | None, name: str
) -> float:
    if name in settled or report is None or report.row_bytes is None:
        return estimated_row_bytes(config, {name: settled[name]} if name in settled else settled)
    return report.row_bytes + STATS_BYTES * config.store.stats
