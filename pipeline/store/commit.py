"""Commit a unit: its objects published whole, its receipt last. That the receipt exists is the commit.

Execution may happen more than once (a killed worker, two drivers, a straggler run twice); publication
happens once. Who finds a name taken adopts what stands there, so that receipts always describe the bytes
that are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.layout import array_layouts
from softcask.pipeline.store.objects import StoreObjects
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest, TeacherManifest, UnitCommit
from softcask.storage_schemas.stats import stats_table


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """The rows of one unit, quarantined ones among them.

    Attributes:
        segment: Their segment.
        view: Number of the view.
        index: Place of the unit in the segment.
        sample_ids: `[n]` ids.
        labels: `[n]`, -1 where a row has none.
        readable: `[n]`, False where a row is quarantined.
    """

    segment: SegmentManifest
    view: int
    index: int
    sample_ids: Sequence[str]
    labels: NDArray[np.int64]
    readable: NDArray[np.bool_]

    @property
    def unit(self) -> str:
        """The unit's name within its teacher."""
        return keys.unit_name(self.segment.segment, self.view, self.index)


def committed_units(objects: StoreObjects, teacher: str) -> set[str]:
    """Names of a teacher's committed units: one listing, no receipt is read."""
    names = objects.names(keys.commits_folder(teacher))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_commit(objects: StoreObjects, teacher: TeacherManifest, unit: str) -> UnitCommit | None:
    """A unit's receipt, or None where it is not committed.

    Raises:
        CorruptObject: The receipt is damaged.
        ManifestMismatch: It was made by something else than the teacher's name is pinned to.
    """
    key = keys.commit(teacher.name, unit)
    if (data := objects.read_if_present(key)) is None:
        return None
    commit = UnitCommit.from_bytes(data, key)
    if (commit.teacher, commit.unit) != (teacher.name, unit):
        raise CorruptObject(f"{key} is the receipt of {commit.teacher}/{commit.unit}; it was moved or copied")
    if commit.fingerprint != digest(teacher.fingerprint):
        raise ManifestMismatch(
            f"{key} was committed by {commit.fingerprint}, teacher {teacher.name!r} is pinned to "
            f"{digest(teacher.fingerprint)}; the two come from different stores"
        )
    return commit


def commit_unit(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, logits_RC: NDArray[np.float32]
) -> UnitCommit:
    """Encode the logits of a unit's readable rows `[R, C]`, publish them, and write the receipt.

    Returns:
        The receipt in the store: this call's, or the one that another writer got there first with.

    Raises:
        StoreAccess: The filesystem refused; nothing of this unit counts as committed.
    """
    columns = _scattered(codec_from(teacher.codec).encode(logits_RC), rows.readable)
    records, columns = _publish_columns(objects, teacher, rows, columns)
    stats = _stats(teacher, rows, columns)
    records.append(_publish_stats(objects, teacher, rows, stats))
    receipt = _receipt(teacher, rows, columns, stats, records)
    if objects.publish(keys.commit(teacher.name, rows.unit), receipt.to_bytes()):
        return receipt
    return read_commit(objects, teacher, rows.unit) or receipt


def _scattered(columns: Mapping[str, NDArray[Any]], readable: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Columns over all rows of the unit; quarantined ones hold NaN."""
    if readable.all():
        return dict(columns)
    spread = {}
    for name, values in columns.items():
        spread[name] = np.full((len(readable), *values.shape[1:]), np.nan, dtype=values.dtype)
        spread[name][readable] = values
    return spread


def _publish_columns(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, columns: dict[str, NDArray[Any]]
) -> tuple[list[ObjectRecord], dict[str, NDArray[Any]]]:
    """Publish a shard a column; where one stands already and is whole, that one counts."""
    group = keys.logits_group(teacher.name, rows.segment.segment, rows.view)
    records, final = [], {}
    for name, layout in array_layouts(teacher, rows.segment).items():
        key = f"{group}/{layout.shard_key(rows.index)}"
        data = layout.encode_shard(columns[name])
        final[name] = columns[name]
        if not objects.publish(key, data) and (standing := objects.read(key)) != data:
            try:
                final[name] = layout.decode_shard(standing, len(rows.readable), key)
                _check_adopted(final[name], rows.readable, key)
                data = standing
            except CorruptObject:
                objects.replace(key, data)
        records.append(ObjectRecord.of(key, data))
    return records, final


def _check_adopted(values: NDArray[Any], readable: NDArray[np.bool_], key: str) -> None:
    if not np.isfinite(values[readable]).all():
        raise CorruptObject(f"{key} holds NaN or infinity where a row was readable")


def _publish_stats(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, stats: pa.Table
) -> ObjectRecord:
    key = keys.stats_part(teacher.name, rows.segment.segment, rows.view, rows.index)
    data = tables.to_bytes(stats)
    if not objects.publish(key, data) and (standing := objects.read(key)) != data:
        try:
            same = tables.from_bytes(standing, tables.STATS, key).equals(stats)
        except CorruptObject:
            same = False
        if same:
            data = standing
        else:
            objects.replace(key, data)
    return ObjectRecord.of(key, data)


def _stats(teacher: TeacherManifest, rows: UnitRows, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    first, _ = rows.segment.unit_range(rows.index)
    kept = np.flatnonzero(rows.readable)
    return stats_table(
        codec_from(teacher.codec).decode({name: values[kept] for name, values in columns.items()}),
        rows_B=first + kept,
        sample_ids=[rows.sample_ids[int(place)] for place in kept],
        labels_B=rows.labels[kept],
    )


def _receipt(
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
    stats: pa.Table,
    records: Sequence[ObjectRecord],
) -> UnitCommit:
    start, stop = rows.segment.unit_range(rows.index)
    labels = stats["label"].fill_null(-1).to_numpy()
    top = pc.list_element(stats["top_classes"], 0).to_numpy()
    row_max = columns["row_max"][rows.readable]
    return UnitCommit(
        teacher=teacher.name,
        unit=rows.unit,
        fingerprint=digest(teacher.fingerprint),
        start=start,
        stop=stop,
        rows=len(stats),
        labelled=int((labels >= 0).sum()),
        correct=int((labels == top).sum()),
        row_max_range=(float(row_max.min()), float(row_max.max())) if len(row_max) else None,
        objects=tuple(records),
    )
