"""What is checked of each kind of object, beyond its checksum; each check raises `CorruptObject`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.layout import Part, UnitObject
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.base import Codec, Column
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest, UnitCommit

_DECODED_ROWS = 16


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


def check_logits(
    part: UnitObject, codec: Codec, commit: UnitCommit, rows: pa.Table | None, key: str, data: bytes
) -> None:
    """It decodes, and holds values of the readable rows and of no others."""
    values = part.decode(data)
    if rows is None:
        return
    readable_n = rows["readable"].to_numpy()
    if isinstance(part, Part):
        _check_part(part, codec, readable_n, values, data)
    for column in part.columns:
        check_decoded(column, values[column.name], commit, readable_n, key)


def check_decoded(
    column: Column, values_n: NDArray[Any], commit: UnitCommit, readable_n: NDArray[np.bool_], key: str
) -> None:
    """A unit's column holds values of the readable rows and of no others."""
    if (wrong := np.flatnonzero(readable_n & ~_filled(column, values_n))).size:
        raise CorruptObject(_at(key, "no finite values", commit, wrong))
    if (wrong := np.flatnonzero(~readable_n & ~_blank(column, values_n))).size:
        raise CorruptObject(_at(key, "values, though quarantined", commit, wrong))


def _check_part(
    part: Part, codec: Codec, readable_n: NDArray[np.bool_], values: Mapping[str, NDArray[Any]], data: bytes
) -> None:
    rows_R, _ = part.layout.decode_part(data, part.start, part.stop, part.key)
    if not np.array_equal(rows_R - part.start, kept := np.flatnonzero(readable_n)):
        raise CorruptObject(f"{part.key} holds {len(rows_R)} rows, other ones than the {len(kept)} readable")
    # Bytes are held by checksums; a few rows tell whether their values are what this codec writes.
    codec.decode({name: column[kept[:_DECODED_ROWS]] for name, column in values.items()})


def _filled(column: Column, values: NDArray[Any]) -> NDArray[np.bool_]:
    if column.dtype.kind != "f":
        return np.ones(len(values), dtype=np.bool_)
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def _blank(column: Column, values: NDArray[Any]) -> NDArray[np.bool_]:
    if column.dtype.kind == "f":
        return np.asarray(~np.isfinite(values).reshape(len(values), -1).any(axis=1))
    return np.asarray(np.asarray(values == column.blank(1)).reshape(len(values), -1).all(axis=1))


def _at(key: str, what: str, commit: UnitCommit, wrong: NDArray[np.int64]) -> str:
    return f"{key} holds {what} for row {commit.start + int(wrong[0])} ({wrong.size} rows in all)"


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
