"""Soft targets as plain Parquet, for pandas, DuckDB, polars and Hugging Face `datasets`.

A row a sample, streamed a block of rows at a time, so that memory is bounded whatever the store's size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softcask.pipeline.exchange.destination import Destination, WrittenFile, writing
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.fingerprint import digest

FILE_BYTES = 128 << 20
"""Size at which a folder's next file is begun."""

_BLOCK_BYTES = 16 << 20
_MOST_BLOCK_ROWS = 65_536
_MOST_WIDE = 4_096
_OTHERS = ("sample_id", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What columns an export has besides `sample_id` and `label`.

    Attributes:
        values: Probabilities at a temperature, or raw logits.
        top_k: Only so many classes a row, the most probable first; None: all.
        wide: A column a class instead of one column of lists.
        temperature: T of the probabilities.
    """

    values: Literal["probabilities", "logits"] = "probabilities"
    top_k: int | None = None
    wide: bool = False
    temperature: float = 1.0

    def check(self, num_classes: int) -> None:
        """Refuse what makes no table.

        Raises:
            ConfigError: Top-k of no or too many classes, or as columns; or too many columns.
        """
        if self.top_k is not None and not 1 <= self.top_k <= num_classes:
            raise ConfigError(f"the top {self.top_k} of {num_classes} classes; expected 1 to {num_classes}")
        if self.wide and self.top_k is not None:
            raise ConfigError(
                "the top classes differ from row to row, so they cannot be columns; leave one out"
            )
        if self.wide and num_classes > _MOST_WIDE:
            raise ConfigError(
                f"{num_classes} columns, one a class; at most {_MOST_WIDE}: use lists, which have no bound"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        uri: Where it stands.
        rows: Rows written.
        skipped: Rows left out, because not all teachers have labelled them yet.
        bytes: Size of all files.
        files: Each file.
    """

    uri: str
    rows: int
    skipped: int
    bytes: int
    files: tuple[WrittenFile, ...]


def export(
    targets: SoftTargets,
    uri: str,
    *,
    shape: Shape | None = None,
    rows_N: NDArray[np.int64] | None = None,
    overwrite: bool = False,
    file_bytes: int = FILE_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write soft targets as Parquet, whole or not at all.

    Args:
        targets: Which teachers of which store, how combined.
        uri: Local path or fsspec URL: one file if it ends in `.parquet`, else a folder of several.
        shape: Which columns; None: probabilities at T=1 in one column of lists.
        rows_N: Numbers of the rows, in the order to be written; None: all. Rows of a partial store that a
            teacher has no logits of are left out.
        overwrite: Replace what stands there.
        file_bytes: Size at which a folder's next file is begun.
        progress: Called with rows written and rows in all.

    Raises:
        ExchangeError: Something stands at `uri` already.
        ConfigError: The shape makes no table, or a temperature no sense.
        StoreError: A teacher's logits cannot be had so, or the place cannot be written to.
    """
    shape = shape or Shape()
    shape.check(targets.num_classes)
    if shape.values == "probabilities":
        targets.check_temperature(shape.temperature)
    asked_N = np.arange(len(targets.store.rows)) if rows_N is None else rows_N
    kept_N = asked_N[targets.available()[asked_N]]
    facts = _facts(targets, shape)
    schema = _schema(targets, shape).with_metadata({"softcask": json.dumps(facts, ensure_ascii=False)})
    with writing(uri, facts=facts, overwrite=overwrite) as to:
        done = 0
        for written in _write_files(to, schema, _blocks(targets, shape, kept_N, schema), file_bytes):
            done += written
            if progress is not None:
                progress(done, len(kept_N))
    return ExportReport(
        uri=uri,
        rows=len(kept_N),
        skipped=len(asked_N) - len(kept_N),
        bytes=sum(file.bytes for file in to.files),
        files=tuple(to.files),
    )


def _write_files(
    to: Destination, schema: pa.Schema, blocks: Iterator[pa.Table], file_bytes: int
) -> Iterator[int]:
    """Write blocks into one file or several; yields the rows of each block."""
    block = next(blocks, None)
    while block is not None or not to.files:  # an export of no rows is a file of none
        path, rows = to.next_file(), 0
        with _writer(path, schema) as file:
            while block is not None and (not rows or to.single or path.stat().st_size < file_bytes):
                file.write_table(block, row_group_size=len(block))
                rows += len(block)
                yield len(block)
                block = next(blocks, None)
        to.complete(path, rows)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    repeating = [name for name in ("label",) if name in schema.names]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeating,
        write_page_checksum=True,
        write_page_index=True,
        store_schema=True,
    )


def _blocks(
    targets: SoftTargets, shape: Shape, rows_N: NDArray[np.int64], schema: pa.Schema
) -> Iterator[pa.Table]:
    rows = targets.store.rows
    size = max(1, min(_MOST_BLOCK_ROWS, _BLOCK_BYTES // (4 * targets.num_classes)))
    for first in range(0, len(rows_N), size):
        rows_B = rows_N[first : first + size]
        labels_B = rows.labels[rows_B]
        columns = [
            pa.array(rows.sample_ids[rows_B], pa.string()),
            pa.array(labels_B, pa.int64(), mask=labels_B < 0),
            *_value_columns(targets, shape, rows_B),
        ]
        yield pa.Table.from_arrays(columns, schema=schema)


def _value_columns(targets: SoftTargets, shape: Shape, rows_B: NDArray[np.int64]) -> list[pa.Array]:
    if shape.values == "logits":
        values_BC = targets.logits(rows_B)
    else:
        values_BC = targets.probabilities(rows_B, shape.temperature)
    if shape.wide:
        return [pa.array(np.ascontiguousarray(values_B)) for values_B in values_BC.T]
    if shape.top_k is None:
        return [_lists(values_BC)]
    classes_BK = top_of(values_BC, shape.top_k)
    return [_lists(classes_BK), _lists(np.take_along_axis(values_BC, classes_BK, axis=1))]


def top_of(values_BC: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """Classes `[B, count]` of the largest values, largest first; of equal ones the lower class first."""
    if count < values_BC.shape[1]:
        some_BK = np.sort(np.argpartition(-values_BC, count - 1, axis=1)[:, :count], axis=1)
    else:
        some_BK = np.broadcast_to(np.arange(count), values_BC.shape)
    order_BK = np.argsort(-np.take_along_axis(values_BC, some_BK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some_BK, order_BK, axis=1).astype(np.int32)


def _lists(values_BK: NDArray[Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values_BK).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values_BK.shape[1])


def _schema(targets: SoftTargets, shape: Shape) -> pa.Schema:
    names = targets.store.class_names
    fields = [pa.field("sample_id", pa.string(), nullable=False), pa.field("label", pa.int64())]
    if shape.wide:
        taken = {name: f"{name} (class)" for name in _OTHERS}
        return pa.schema([*fields, *(pa.field(taken.get(name, name), pa.float32()) for name in names)])
    length = shape.top_k or len(names)
    if shape.top_k is not None:
        fields.append(pa.field("classes", pa.list_(pa.int32(), length)))
    return pa.schema([*fields, pa.field(shape.values, pa.list_(pa.float32(), length))])


def _facts(targets: SoftTargets, shape: Shape) -> dict[str, Any]:
    """Where the numbers come from: in every file's metadata, and in a folder's manifest."""
    teachers = targets.store.teachers
    return {
        "values": shape.values,
        "temperature": shape.temperature if shape.values == "probabilities" else None,
        "rule": targets.rule if shape.values == "probabilities" else "mean of logits",
        "teachers": {name: digest(teachers[name].pinned()) for name in targets.teachers},
        "weights": [float(weight) for weight in targets.weights_M],
        "class_names": list(targets.store.class_names),
        **({"view": view} if (view := getattr(targets.store, "view_number", 0)) else {}),
    }
