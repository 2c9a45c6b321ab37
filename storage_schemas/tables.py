"""Schemas of the Parquet tables, and how a table becomes bytes.

All of them open in plain `pandas.read_parquet`. The bytes depend on the table alone (and on pyarrow's
version), never on the clock or the machine.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from softcask.storage_schemas.errors import CorruptObject

HASH_BYTES = 16

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


def from_bytes(data: bytes, schema: pa.Schema, key: str) -> pa.Table:
    """The table in `data`, with page checksums verified.

    Args:
        data: A whole Parquet file.
        schema: What it must hold.
        key: Name of the object, for the message.

    Raises:
        CorruptObject: Not a Parquet file, a page does not match its checksum, or it holds other columns.
    """
    try:
        # Not read_table: its threads outlive it, and now and then one of them aborts the process at its end
        # (apache/arrow#34314). This one starts none, and is faster on tables that are in memory.
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptObject(f"{key} is not a readable Parquet file: {error}") from error
    if not table.schema.equals(schema):
        raise CorruptObject(f"{key} holds the columns {table.schema.names}, expected {schema.names}")
    return table
