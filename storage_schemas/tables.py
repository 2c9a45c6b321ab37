"""Schemas of the Parquet tables, and how a table becomes bytes.

All of them open in plain `pandas.read_parquet`. The bytes depend on the table alone (and on pyarrow's
version), never on the clock or the machine.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject

HASH_BYTES = 16
_FACTS = b"softcask"

_MOST_BYTES = 4 << 30
_MOST_GROWTH, _ALWAYS_BYTES = 1000, 64 << 20
_MOST_VALUES_A_BYTE, _ALWAYS_VALUES = 100, 1 << 20
"""What a table of ours never comes near: a hundred bytes a row that grow tenfold, ten values a byte."""

ROWS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.binary(HASH_BYTES)),
        pa.field("label", pa.int32()),
        pa.field("quarantine", pa.string()),
    ]
)
"""`transfer_set/SEGMENT/rows.parquet`: every row of the source in order; row i is row i of the logits."""

STATS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("top_classes", pa.list_(pa.int32()), nullable=False),
        pa.field("top_log_probs", pa.list_(pa.float32()), nullable=False),
        pa.field("entropy", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),
        pa.field("logsumexp", pa.float32(), nullable=False),
    ]
)
"""`stats/`: what a teacher thinks of a row at T=1, in nats; quarantined rows have no entry."""

PROBE = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("logits", pa.list_(pa.float32()), nullable=False),
    ]
)
"""`probe.parquet`: raw logits of a few rows, computed in one batch, to recognise a teacher by."""

_OBJECT = pa.struct([("key", pa.string()), ("size", pa.int64()), ("crc32c", pa.string())])

COMMITS = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("view", pa.int32(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("labelled", pa.int64(), nullable=False),
        pa.field("correct", pa.int64(), nullable=False),
        pa.field("objects", pa.list_(_OBJECT), nullable=False),
        pa.field("receipt", _OBJECT, nullable=False),
    ]
)
"""`catalog/GENERATION/commits.parquet`: one row a committed unit."""


DROPPED = pa.schema([pa.field("sample_id", pa.string(), nullable=False)])
"""`catalog/GENERATION/dropped-*.parquet`: rows that a store holds no more, in order, each once."""


def content_hashes_of(table: pa.Table) -> NDArray[np.void]:
    """`content_hash` of a table of rows as raw bytes `[rows]`, V16; zeros where a row has none.

    A view of the table's own memory where every row has one and all lie in one piece.
    """
    pieces = table["content_hash"]
    column = pieces.chunk(0) if pieces.num_chunks == 1 else pieces.combine_chunks()
    memory = column.buffers()[1]
    dtype = np.dtype(f"V{HASH_BYTES}")
    if memory is None or not len(column):
        return np.zeros(len(column), dtype=dtype)
    hashes = np.frombuffer(memory, dtype=dtype, count=len(column), offset=column.offset * HASH_BYTES)
    if column.null_count:
        hashes = hashes.copy()
        hashes[column.is_null().to_numpy(zero_copy_only=False)] = np.void(bytes(HASH_BYTES))
    return hashes


_REPEATING = ["label", "quarantine", "top_classes.list.element", "teacher", "segment"]
_FLOATS = ["top_log_probs.list.element", "entropy", "margin", "logsumexp", "logits.list.element"]


def to_bytes(table: pa.Table) -> bytes:
    """The table as one Parquet file: zstd, page checksums, statistics, page index.

    A dictionary is built only for columns whose values repeat, floats are split by byte: .4 us and 32 bytes a
    row of statistics, where pyarrow's defaults take .9 us and 51 bytes.
    """
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=_REPEATING,
        use_byte_stream_split=_FLOATS,
        write_page_checksum=True,
        write_page_index=True,
        store_schema=True,
    )
    return sink.getvalue()


def from_bytes(
    data: bytes,
    schema: pa.Schema,
    key: str,
    *,
    rows: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The table in `data`, with page checksums verified; nothing is unpacked before the footer is right.

    Args:
        data: A whole Parquet file.
        schema: What it must hold.
        key: Name of the object, for the message.
        rows: Rows that it must hold, where the caller knows.
        columns: What of it to unpack, nested ones as `objects.list.element.size`; None for all.

    Raises:
        CorruptObject: Not a Parquet file, a page does not match its checksum, it holds other columns or
            another number of rows, or would unpack to more than any table of a store does.
    """
    try:
        # Not read_table: its threads outlive it, and now and then one of them aborts the process at its end
        # (apache/arrow#34314). This one starts none, and is faster on tables that are in memory.
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            _check_footer(file, len(data), schema, key, rows)
            table = file.read(columns=columns, use_threads=False)
            table.validate(full=True)  # text that is no UTF-8 would raise wherever it is first looked at
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, CorruptObject):
            raise
        raise CorruptObject(f"{key} is not a readable Parquet file: {error}") from error
    return table


def with_facts(table: pa.Table, facts: Mapping[str, str]) -> pa.Table:
    """The table with facts beside its rows, which no reader needs."""
    return table.replace_schema_metadata({_FACTS: json.dumps(facts, sort_keys=True)})


def facts_of(table: pa.Table) -> dict[str, str]:
    """What stands beside a table's rows; nothing where that is none of ours."""
    try:
        found = json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _check_footer(file: pq.ParquetFile, size: int, schema: pa.Schema, key: str, rows: int | None) -> None:
    if not file.schema_arrow.equals(schema):
        raise CorruptObject(f"{key} holds the columns {file.schema_arrow.names}, expected {schema.names}")
    footer = file.metadata
    if rows is not None and footer.num_rows != rows:
        raise CorruptObject(f"{key} holds {footer.num_rows} rows, expected {rows}")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    unpacked = sum(column.total_uncompressed_size for column in columns)
    values = max(footer.num_rows * len(schema), sum(column.num_values for column in columns))
    most_bytes = min(_MOST_BYTES, max(_MOST_GROWTH * size, _ALWAYS_BYTES))
    most_values = max(_MOST_VALUES_A_BYTE * size, _ALWAYS_VALUES)
    if unpacked > most_bytes or values > most_values:
        raise CorruptObject(
            f"{key}, of {size} bytes, says that it unpacks to {unpacked} bytes and {values} values; a table "
            f"of this size has at most {most_bytes} bytes and {most_values} values. It is not trusted"
        )
