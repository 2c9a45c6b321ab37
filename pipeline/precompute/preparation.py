"""Make a store ready for a run: its root, its rows, what its teachers' names are pinned to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import pyarrow as pa

from softcask.pipeline.pinning import is_pinned
from softcask.pipeline.plan import Tasks, choose_unit_rows
from softcask.pipeline.precompute.codecs import Settled, estimated_row_bytes, refuse_other_request
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.record import versions
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import read_contents
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.pipeline.transfer_sets.text import dtype_name
from softcask.pipeline.views.options import ViewsOptions
from softcask.pipeline.views.pinned import pin_views
from softcask.pipeline.views.segments import SegmentRows, reader_of
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import ManifestMismatch, QuarantineExceeded
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest


def prepare_rows(
    config: RunConfig,
    objects: StoreObjects,
    source: TransferSet,
    settled: Mapping[str, Settled],
    watch: Callable[[Progress], None],
) -> list[SegmentManifest]:
    """The segments that hold the source's rows, in order; rows that came behind those known make a new one.

    Raises:
        ManifestMismatch: Rows of a segment are gone from the source, or are others now.
        QuarantineExceeded: More rows cannot be read than the run allows.
    """
    whole = lru_cache(maxsize=1)(lambda: index_source(config, objects, source, watch))
    standing = standing_segments(objects)
    segments: list[SegmentManifest] = []
    first = 0
    while len(segments) < len(standing) or first < len(source) or not segments:
        known = standing[len(segments)] if len(segments) < len(standing) else None
        first, rows = (known.first, known.rows) if known else (first, len(source) - first)
        segment = prepare_segment(
            objects,
            known.segment if known else next_segment(segments),
            source=source.describe(),
            input_shape=source.input_shape,
            input_dtype=dtype_name(source.input_dtype),
            unit_rows=config.store.unit_rows,
            index=lambda first=first, rows=rows: whole().slice(first, rows),  # type: ignore[misc]
            choose_unit_rows=lambda count: rows_a_unit(config, settled, count),
            columns=_zarr_columns(config, settled),
            first=first,
        )
        refuse_quarantined(objects, segment, config)
        segments.append(segment)
        first += segment.rows
    if first > len(source):
        raise ManifestMismatch(
            f"the transfer set has {len(source)} rows, {objects.uri} was made from {first}. Use the rows it "
            "was made from and add new ones behind them, or name another store. Nothing was changed."
        )
    return segments


def standing_segments(objects: StoreObjects) -> list[SegmentManifest]:
    """The segments of a store, in order; none where there is no store yet."""
    return sorted(read_contents(objects).segments, key=lambda segment: segment.first)


def next_segment(segments: Sequence[SegmentManifest]) -> str:
    """Name of the segment behind these; of those between, some may have been dropped and collected."""
    return keys.segment_name(max((keys.segment_number(each.segment) + 1 for each in segments), default=0))


def index_source(
    config: RunConfig, objects: StoreObjects, source: TransferSet, watch: Callable[[Progress], None]
) -> pa.Table:
    """Every row of the source; then the root stands."""
    read = 0

    def step(rows: int) -> None:
        nonlocal read
        read += rows
        watch(Progress(stage="index", done=read, total=len(source)))

    table = index_rows(
        source,
        num_classes=len(config.classes.class_names),
        max_quarantined=config.transfer_set.max_quarantined,
        progress=step,
    )
    # Only now: rows that do not fit the classes leave no trace.
    prepare_root(objects, config.classes.class_names)
    return table


def refuse_quarantined(objects: StoreObjects, segment: SegmentManifest, config: RunConfig) -> None:
    """The bound holds for rows that an earlier run indexed under another one, too."""
    most = config.transfer_set.max_quarantined
    if segment.quarantined > most * segment.rows:
        raise QuarantineExceeded(
            f"{segment.quarantined} of {segment.rows} rows ({segment.quarantined / segment.rows:.2%}) could "
            f"not be read when {objects.uri} was begun; expected at most {most:.2%}; repair them and name "
            "another store, or raise transfer_set.max_quarantined"
        )


def rows_a_unit(config: RunConfig, settled: Mapping[str, Settled], rows: int) -> int:
    """Rows a unit where the user states none."""
    batch_size = math.lcm(*(teacher.planned_batch_size for teacher in config.teachers))
    if batch_size > 4096:  # batches that share no small multiple need not divide the unit
        batch_size = max(teacher.planned_batch_size for teacher in config.teachers)
    row_bytes = estimated_row_bytes(config, settled)
    return choose_unit_rows(rows=rows, row_bytes=row_bytes, batch_size=batch_size)


def _zarr_columns(config: RunConfig, settled: Mapping[str, Settled]) -> list[Column]:
    """What lies in Zarr, whose chunks a length of units must suit."""
    return [
        column
        for known in settled.values()
        if known.codec.container == "zarr"
        for column in codec_from(known.codec).columns(known.classes)
    ]


def pin_run_views(
    objects: StoreObjects,
    options: ViewsOptions,
    tasks: Tasks,
    segments: Sequence[SegmentManifest],
    source: TransferSet,
) -> None:
    """Pin those of a run's views that are not pinned yet, by a few rows of the first segment.

    Raises:
        SoftcaskError: As `softcask.pipeline.views.pinned.pin_views`.
    """
    first = min(segments, key=lambda segment: segment.first)
    rows = SegmentRows.of(read_rows(objects, first))
    pin_views(
        objects,
        options,
        tasks.views,
        first.segment,
        rows,
        reader_of(source, first),
    )


def teacher_manifest(config: RunConfig, teacher: TeacherOptions, settled: Settled) -> TeacherManifest:
    """What a teacher's name is to be pinned to."""
    recorded = {"versions": versions(), "source": teacher.source_digest(), "num_cpus": teacher.num_cpus}
    recorded |= teacher.recorded()
    return TeacherManifest(
        name=teacher.name,
        kind=teacher.kind,
        role=teacher.role,
        num_classes=len(config.classes.class_names),
        absent_classes=teacher.absent_classes,
        batch_size=teacher.batch_size,
        codec=settled.codec,
        codec_request=settled.request,
        expected_fidelity=settled.expected,
        stats=settled.stats,
        fingerprint=canonical(teacher.fingerprint_fields()),
        recorded=recorded | ({"codec": settled.recorded} if settled.recorded else {}),
    )


def refuse_pinned(config: RunConfig, objects: StoreObjects, settled: Mapping[str, Settled]) -> None:
    """Refuse names that belong to other teachers, before any work.

    Raises:
        ManifestMismatch: Units are committed under a name by something else; lists the fields.
    """
    for teacher in config.teachers:
        if teacher.name in settled:
            is_pinned(objects, teacher_manifest(config, teacher, settled[teacher.name]))
        else:
            classes = len(config.classes.class_names)
            unsettled = Settled(codec=Dense16().to_spec(), classes=classes, stats=config.store.stats)
            refuse_other_request(config, objects, teacher_manifest(config, teacher, unsettled))
