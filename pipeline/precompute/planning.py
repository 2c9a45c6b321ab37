"""What `precompute` would do, before it costs anything; or at the cost of a sample, which codec suits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from softcask.pipeline.store.receipts import committed_codes
from softcask.pipeline.store.writing.prepare import check_root
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.views.options import planned_views
from softcask.pipeline.views.pinned import refuse_other_views
from softcask.storage_schemas.manifest import Dropped
from softcask.storage_schemas.unit_codes import first_code


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
    refuse_other_views(objects, config.views)
    dropped = refuse_dropped(objects, settled)
    units = _units(config, objects, settled, dropped, len(source))
    left_U = {
        teacher.name: ~np.isin(units.code_U, committed_codes(objects, teacher.name))
        for teacher in config.teachers
    }
    busy = [teacher for teacher in config.teachers if left_U[teacher.name].any()]
    reports = _reports(config, busy, watch) if trials else {}
    groups = group_teachers(config.teachers, config.executor.gpu_memory_gb)
    group_of = {member.name: name for name, members in groups.items() for member in members}
    return Plan(
        store=config.store.uri,
        rows=units.rows,
        views=planned_views(config.views),
        unit_rows=int(units.rows_U.max(initial=0)),
        teachers={
            name: _teacher_plan(
                config, settled, units.rows_U[left], len(left), reports.get(name), name, group_of[name]
            )
            for name, left in left_U.items()
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
    left_L: NDArray[np.int64],
    units: int,
    report: TrialReport | None,
    name: str,
    group: str,
) -> TeacherPlan:
    rows = int(left_L.sum())
    return TeacherPlan(
        units=units,
        committed=units - len(left_L),
        rows=rows,
        bytes=int(rows * _planned_row_bytes(config, settled, report, name)),
        group=group,
        codec=settled[name].codec.name if name in settled else report.kept_by if report else "",
        chosen=report.chosen if report and name not in settled else "",
        unmet=report is not None and name not in settled and not report.chosen,
        trials=report.trials if report else (),
        reason=report.reason if report else "",
        seconds=rows * report.seconds_a_row if report else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """Units that every teacher is to have.

    Attributes:
        rows: Of the transfer set.
        code_U: `[U]` their codes.
        rows_U: `[U]` rows of each.
    """

    rows: int
    code_U: NDArray[np.int64]
    rows_U: NDArray[np.int64]


def _units(
    config: RunConfig, objects: StoreObjects, settled: Mapping[str, Settled], dropped: Dropped, rows: int
) -> _Units:
    """Of the segments that stand, and of rows behind them."""
    codes, sizes, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    segments = standing_segments(objects)
    cuts = []
    for segment in segments:
        refuse_quarantined(objects, segment, config)
        if segment.segment not in dropped.segments:
            cuts.append((segment.segment, segment.rows, segment.unit_rows))
        first = segment.first + segment.rows
    if rows > first:
        unit_rows = config.store.unit_rows or rows_a_unit(config, settled, rows - first)
        cuts.append((next_segment(segments), rows - first, unit_rows))
    for name, count, unit_rows in cuts:
        starts_U = np.arange(0, count, unit_rows, dtype=np.int64)
        for view in planned_views(config.views):
            codes.append(first_code(name, view) + np.arange(len(starts_U)))
            sizes.append(np.minimum(unit_rows, count - starts_U))
    return _Units(rows=max(rows, first), code_U=np.concatenate(codes), rows_U=np.concatenate(sizes))


def _planned_row_bytes(
    config: RunConfig, settled: Mapping[str, Settled], report: TrialReport | None, name: str
) -> float:
    if name in settled or report is None or report.row_bytes is None:
        return estimated_row_bytes(config, {name: settled[name]} if name in settled else settled)
    return report.row_bytes + STATS_BYTES * config.store.stats
