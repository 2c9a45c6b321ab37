"""Stores for benchmarks, of any number of rows, made without a teacher through the store's own layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.layout import unit_objects, zarr_metadata
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import (
    CodecSpec,
    ObjectRecord,
    SegmentManifest,
    TeacherManifest,
    UnitCommit,
)

Encoded = dict[str, NDArray[Any]]


def logits_like(rows: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Logits `[rows, classes]` as a classifier's: a few high ones over a wide tail."""
    random = np.random.default_rng(seed)
    logits_RC = random.normal(0, 2.5, (rows, classes)).astype(np.float32)
    logits_RC[np.arange(rows), random.integers(0, classes, rows)] += 9
    return logits_RC


def make_store(
    folder: Path,
    *,
    rows: int,
    unit_rows: int,
    classes: int,
    teachers: int,
    codec: CodecSpec,
    encoded: Callable[[int, int, int], Encoded],
    table: pa.Table | None = None,
) -> str:
    """A sealed store, and its place.

    Args:
        folder: Where it is made.
        rows: Rows of its one segment.
        unit_rows: Rows a unit.
        classes: Classes.
        teachers: Teachers, `t0`, `t1`, ...
        codec: How they are kept.
        encoded: Columns of the rows from start to stop of teacher m, from (m, start, stop).
        table: What is known of the rows, as of inputs that were indexed; None makes something up.
    """
    objects = StoreObjects.at(str(folder))
    prepare_root(objects, tuple(f"class {number}" for number in range(classes)))
    segment = prepare_segment(
        objects,
        "s0000",
        source={"kind": "made"},
        input_shape=(1,),
        input_dtype="uint8",
        unit_rows=unit_rows,
        index=lambda: _rows(rows) if table is None else table,
        choose_unit_rows=lambda _: unit_rows,
    )
    for m in range(teachers):
        teacher = _teacher(f"t{m}", classes, codec)
        for key, document in zarr_metadata(teacher, segment, 0).items():
            objects.publish(key, document)
        objects.publish(keys.probe(teacher.name), tables.to_bytes(tables.PROBE.empty_table()))
        objects.publish(keys.teacher_manifest(teacher.name), teacher.to_bytes())
        for index in range(segment.units):
            _commit(objects, teacher, segment, index, encoded(m, *segment.unit_range(index)))
    seal(objects)
    return str(folder)


def _rows(rows: int) -> pa.Table:
    hashes = np.arange(rows, dtype="<u8").repeat(2).view("V16")
    return pa.table(
        {
            "sample_id": [f"row-{row:09d}" for row in range(rows)],
            "content_hash": pa.array(
                [bytes(each) for each in hashes], tables.ROWS.field("content_hash").type
            ),
            "label": pa.array(np.arange(rows) % 2, pa.int32()),
            "quarantine": pa.nulls(rows, pa.string()),
        },
        schema=tables.ROWS,
    )


def _teacher(name: str, classes: int, codec: CodecSpec) -> TeacherManifest:
    return TeacherManifest(
        name=name,
        kind="torch",
        role="member",
        num_classes=classes,
        batch_size=500,
        codec=codec,
        fingerprint={"weights": name},
        recorded={},
    )


def _commit(
    objects: StoreObjects, teacher: TeacherManifest, segment: SegmentManifest, index: int, columns: Encoded
) -> None:
    start, stop = segment.unit_range(index)
    records = []
    for part in unit_objects(teacher, segment, 0, index):
        data = part.encode(columns, np.ones(stop - start, dtype=np.bool_))
        objects.publish(part.key, data)
        records.append(ObjectRecord.of(part.key, data))
    unit = keys.unit_name(segment.segment, 0, index)
    receipt = UnitCommit(
        teacher=teacher.name,
        unit=unit,
        fingerprint=digest(teacher.fingerprint),
        start=start,
        stop=stop,
        rows=stop - start,
        labelled=stop - start,
        correct=0,
        row_max_range=None,
        objects=tuple(records),
    )
    objects.publish(keys.commit(teacher.name, unit), receipt.to_bytes())
