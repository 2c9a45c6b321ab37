from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.stores import flip, rows_table

from softcask.storage_schemas import tables
from softcask.storage_schemas.errors import CorruptObject

OBJECT = {"key": "teachers/alpha/logits/s0000/v0000/logits/c/0/0", "size": 7, "crc32c": "0badcafe"}
STATS = pa.table(
    {
        "row": [0, 2],
        "sample_id": ["a", "c"],
        "label": [1, None],
        "top_classes": [[1, 0], [0, 1]],
        "top_log_probs": [[-0.25, -1.5], [-0.5, -1.0]],
        "entropy": [0.5, 0.75],
        "margin": [0.25, 0.125],
        "logsumexp": [3.0, -2.0],
    },
    schema=tables.STATS,
)
COMMITS = pa.table(
    {
        "teacher": ["alpha"],
        "unit": ["s0000-v0000-00000000"],
        "segment": ["s0000"],
        "view": [0],
        "index": [0],
        "start": [0],
        "stop": [8],
        "rows": [7],
        "labelled": [5],
        "correct": [3],
        "objects": [[OBJECT, OBJECT]],
        "receipt": [OBJECT],
    },
    schema=tables.COMMITS,
)
PROBE = pa.table({"row": [0], "sample_id": ["a"], "logits": [[0.5, -1.5]]}, schema=tables.PROBE)
EVERY = {"rows": rows_table(9, quarantined=[4]), "stats": STATS, "commits": COMMITS, "probe": PROBE}
NAMES = pytest.mark.parametrize("name", EVERY)


def plain(frame: pd.DataFrame) -> list[dict]:
    """Rows as plain Python, whatever a library calls missing and whichever lists it makes."""

    def value(item: object) -> object:
        if hasattr(item, "tolist"):
            item = item.tolist()
        if isinstance(item, list):
            return [value(inner) for inner in item]
        if isinstance(item, bytes | bytearray):
            return bytes(item)
        return None if item is None or item is pd.NA or item != item else item

    return [{name: value(item) for name, item in row.items()} for row in frame.to_dict("records")]


@NAMES
def test_a_table_comes_back_from_its_bytes(name: str) -> None:
    table = EVERY[name]
    back = tables.from_bytes(tables.to_bytes(table), table.schema, "k")
    assert back.equals(table)


@NAMES
def test_equal_tables_give_equal_bytes_however_they_lie_in_memory(name: str) -> None:
    table = EVERY[name]
    rebuilt = pa.Table.from_pylist(table.to_pylist(), schema=table.schema)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert tables.to_bytes(table) == tables.to_bytes(rebuilt) == tables.to_bytes(pieces)


@NAMES
def test_a_table_opens_in_pandas_duckdb_and_polars(name: str, tmp_path: Path) -> None:
    path, expected = tmp_path / f"{name}.parquet", EVERY[name].to_pylist()
    path.write_bytes(tables.to_bytes(EVERY[name]))
    assert plain(pd.read_parquet(path)) == expected
    assert plain(duckdb.read_parquet(str(path)).df()) == expected
    assert pl.read_parquet(path).to_dicts() == expected


def test_no_rows_are_a_table_too() -> None:
    empty = tables.STATS.empty_table()
    assert tables.from_bytes(tables.to_bytes(empty), tables.STATS, "k").equals(empty)


def test_metadata_of_a_table_is_kept() -> None:
    table = PROBE.replace_schema_metadata({"state_digest": "abc"})
    back = tables.from_bytes(tables.to_bytes(table), tables.PROBE, "k")
    assert back.schema.metadata == {b"state_digest": b"abc"}


def test_a_flipped_bit_in_any_page_is_found_without_any_record_of_the_file() -> None:
    data = tables.to_bytes(EVERY["rows"])
    row_group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    for column in map(row_group.column, range(len(tables.ROWS))):
        last = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        with pytest.raises(CorruptObject, match="rows.parquet"):
            tables.from_bytes(flip(data, last), tables.ROWS, "rows.parquet")


@pytest.mark.parametrize("size", [0, 3, 4, 8, 12, 200])
def test_what_is_cut_or_no_parquet_is_refused(size: int) -> None:
    for data in (tables.to_bytes(STATS)[:size], bytes(size), b"PAR1" * (size // 4)):
        with pytest.raises(CorruptObject, match="some.parquet is not a readable Parquet file"):
            tables.from_bytes(data, tables.STATS, "some.parquet")


def test_other_columns_are_refused() -> None:
    data = tables.to_bytes(STATS)
    with pytest.raises(CorruptObject, match="some.parquet holds the columns"):
        tables.from_bytes(data, tables.ROWS, "some.parquet")
    wider = STATS.set_column(0, "row", STATS["row"].cast(pa.float64()))
    with pytest.raises(CorruptObject, match="some.parquet holds the columns"):
        tables.from_bytes(tables.to_bytes(wider), tables.STATS, "some.parquet")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted under /proc")
def test_reading_a_table_starts_no_threads_that_could_abort_the_process_at_its_end() -> None:
    script = """
import os, sys
from softcask.storage_schemas import tables

data = tables.to_bytes(tables.COMMITS.empty_table())
before = set(os.listdir("/proc/self/task"))
tables.from_bytes(data, tables.COMMITS, "key")
sys.exit(len(set(os.listdir("/proc/self/task")) - before))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_another_number_of_rows_than_the_caller_knows_is_refused() -> None:
    data = tables.to_bytes(STATS)
    assert tables.from_bytes(data, tables.STATS, "k", rows=2).equals(STATS)
    with pytest.raises(CorruptObject, match="some.parquet holds 2 rows, expected 3"):
        tables.from_bytes(data, tables.STATS, "some.parquet", rows=3)


def test_columns_and_rows_are_refused_before_anything_is_unpacked() -> None:
    data = bytearray(tables.to_bytes(STATS))
    data[4 : pq.read_metadata(io.BytesIO(data)).row_group(0).column(0).data_page_offset + 60] = bytes(60)
    with pytest.raises(CorruptObject, match="holds the columns"):
        tables.from_bytes(bytes(data), tables.ROWS, "k")
    with pytest.raises(CorruptObject, match="expected 3"):
        tables.from_bytes(bytes(data), tables.STATS, "k", rows=3)


@pytest.mark.parametrize(
    "text", [pytest.param("x" * 60_000_000, id="long text"), pytest.param("", id="many rows")]
)
def test_a_small_file_that_unpacks_to_what_no_table_of_a_store_holds_is_refused(text: str) -> None:
    count = 2 if text else 3_000_000
    ids = pa.array(np.full(count, text, dtype=object), pa.string())
    nothing = {field.name: pa.nulls(count, field.type) for field in tables.ROWS}
    sink = io.BytesIO()
    pq.write_table(
        pa.table({**nothing, "sample_id": ids}, schema=tables.ROWS),
        sink,
        compression="zstd",
        use_dictionary=not text,
    )
    data = sink.getvalue()
    assert len(data) < 29_000
    with pytest.raises(CorruptObject, match="bomb.parquet, of .* bytes, says that it unpacks to"):
        tables.from_bytes(data, tables.ROWS, "bomb.parquet")


def test_rows_that_compress_as_well_as_rows_can_are_read() -> None:
    count = 200_000
    columns = {
        "sample_id": [str(row) for row in range(count)],
        "content_hash": pa.nulls(count, pa.binary(16)),
        "label": pa.nulls(count, pa.int32()),
        "quarantine": ["unreadable"] * count,
    }
    table = pa.table(columns, schema=tables.ROWS)
    assert tables.from_bytes(tables.to_bytes(table), tables.ROWS, "k", rows=count).equals(table)


def test_content_hashes_are_the_tables_own_memory_and_zeros_where_there_is_none() -> None:
    table = rows_table(9)
    whole = tables.content_hashes_of(table)
    assert [bytes(value) for value in whole] == [bytes([row]) * 16 for row in range(9)]
    assert whole.ctypes.data == table["content_hash"].chunk(0).buffers()[1].address
    holed = rows_table(9, quarantined=[0, 4])
    expected = [value or bytes(16) for value in holed["content_hash"].to_pylist()]
    assert [bytes(value) for value in tables.content_hashes_of(holed)] == expected
    pieces = pa.concat_tables([holed.slice(3, 4), holed.slice(0, 3)])
    assert [bytes(value) for value in tables.content_hashes_of(pieces)] == expected[3:7] + expected[:3]
    assert [bytes(value) for value in tables.content_hashes_of(holed.slice(4, 3))] == expected[4:7]


def test_no_rows_have_no_content_hashes() -> None:
    for table in (
        tables.ROWS.empty_table(),
        rows_table(3).slice(3),
        rows_table(3, quarantined=range(3)).slice(3),
    ):
        hashes = tables.content_hashes_of(table)
        assert (hashes.dtype, hashes.shape) == (np.dtype("V16"), (0,))
