"""What is checked of each kind of object, beyond its checksum; each check raises `CorruptObject`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest, UnitCommit
from softcask.storage_schemas.zarr_layout import ArrayLayout


def check_equal(expected: bytes, key: str, data: bytes) -> None:
    """It holds the very bytes that follow from the manifests."""
    if data != expected:
        raise CorruptObject(f"{key} differs from what the store's manifests say it holds; it was changed")


def checked_rows(segment: SegmentManifest, data: bytes) -> pa.Table:
    """A segment's table, which holds as many rows, of each sort, as its manifest says."""
    key = segment.table.key
    table = tables.from_bytes(data, tables.ROWS, key, rows=segment.rows)
    found = {
        "quarantined": len(table) - table["quarantine"].null_count,
        "labelled": len(table) - table["label"].null_count,
    }
    expected = {name: getattr(segment, name) for name in found}
    if found != expected:
        raise CorruptObject(f"{key} holds {found}, its segment says {expected}")
    return table


def check_receipt(commit: UnitCommit, teacher: TeacherManifest, segment: SegmentManifest, key: str) -> None:
    """A receipt lies where it belongs, and fits its teacher and its segment."""
    name, _, index = keys.parse_unit(commit.unit)
    facts = {
        "receipt of": ((commit.teacher, commit.unit), (teacher.name, key.split("/")[-1][: -len(".json")])),
        "fingerprint": (commit.fingerprint, digest(teacher.fingerprint)),
        "unit of": (name if index < segment.units else None, segment.segment),
        "rows": ((commit.start, commit.stop), segment.unit_range(index)),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            raise CorruptObject(f"{key}: {what} {found}, expected {expected}")


def check_shard(
    layout: ArrayLayout, commit: UnitCommit, rows: pa.Table | None, key: str, data: bytes
) -> None:
    """It decodes, and NaN stands under quarantined rows and nowhere else."""
    values = layout.decode_shard(data, commit.stop - commit.start, key)
    if rows is None:
        return
    finite = np.isfinite(values).reshape(len(values), -1)
    readable = rows["readable"].to_numpy()
    wrong = np.flatnonzero(np.where(readable, ~finite.all(axis=1), finite.any(axis=1)))
    if wrong.size:
        row, what = int(wrong[0]), "no finite values" if readable[wrong[0]] else "values, though quarantined"
        raise CorruptObject(f"{key} holds {what} for row {commit.start + row} ({wrong.size} rows in all)")


def check_stats(commit: UnitCommit, rows: pa.Table | None, key: str, data: bytes) -> None:
    """A unit's statistics are of its readable rows."""
    table = tables.from_bytes(data, tables.STATS, key, rows=commit.rows)
    if rows is None:
        return
    expected = rows.filter(rows["readable"])
    if not all(table[name].equals(expected[name]) for name in ("row", "sample_id", "label")):
        raise CorruptObject(f"{key} describes other rows than those of its unit")


def readable_rows(table: pa.Table) -> pa.Table:
    """`row`, `sample_id`, `label` and `readable` of every row."""
    numbers, readable = pa.array(np.arange(len(table))), pc.is_null(table["quarantine"])
    return (
        table.select(["sample_id", "label"]).append_column("row", numbers).append_column("readable", readable)
    )
