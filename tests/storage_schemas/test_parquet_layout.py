from __future__ import annotations

import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.parquet_layout import PartLayout

SPLIT = Column(
    name="bytes", dtype=np.dtype(np.uint8), row_shape=(21,), dimension_names=("row", "byte"), split=True
)
PLAIN = Column(name="triples", dtype=np.dtype("<f2"), row_shape=(3,), dimension_names=("row", "of"))
NUMBER = Column(name="number", dtype=np.dtype("<f4"), row_shape=(), dimension_names=("row",))
RAGGED = Column(name="ragged", dtype=np.dtype(object), row_shape=(), dimension_names=("row",))
LAYOUT = PartLayout(columns=(SPLIT, PLAIN, NUMBER, RAGGED))
ROWS_R = np.array([3, 4, 9])
GENERATOR = np.random.default_rng(1)
COLUMNS = {
    "bytes": GENERATOR.integers(0, 256, (3, 21), dtype=np.uint8),
    "triples": GENERATOR.normal(size=(3, 3)).astype("<f2"),
    "number": np.array([1.5, -2, 0], dtype="<f4"),
    "ragged": np.array([b"", b"one", b"\x00two"], dtype=object),
}


def test_rows_come_back_with_their_places() -> None:
    rows_R, columns = LAYOUT.decode_part(LAYOUT.encode_part(ROWS_R, COLUMNS), 3, 10, "part")
    assert rows_R.tolist() == [3, 4, 9]
    assert columns.keys() == COLUMNS.keys()
    for name, values in columns.items():
        assert values.dtype == COLUMNS[name].dtype
        assert values.tolist() == COLUMNS[name].tolist()


def test_no_rows_are_no_rows() -> None:
    none = {column.name: column.blank(0) for column in LAYOUT.columns}
    rows_R, columns = LAYOUT.decode_part(LAYOUT.encode_part(ROWS_R[:0], none), 0, 4, "part")
    assert len(rows_R) == 0
    assert {name: values.shape for name, values in columns.items()} == {
        name: values.shape for name, values in none.items()
    }


def test_pandas_duckdb_and_polars_read_split_bytes_as_words(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(LAYOUT.encode_part(ROWS_R, COLUMNS))
    names = ["bytes.0", "bytes.1", "bytes.2"]
    words = np.zeros((3, 24), dtype=np.uint8)
    words[:, :21] = COLUMNS["bytes"]
    expected = words.view("<i8").tolist()
    assert pd.read_parquet(path)[names].to_numpy().tolist() == expected
    assert pl.read_parquet(path)[names].to_numpy().tolist() == expected
    quoted = ", ".join(f'"{name}"' for name in names)
    found = duckdb.connect().execute(f"select {quoted} from read_parquet(?)", [str(path)]).fetchall()  # noqa: S608
    assert [list(row) for row in found] == expected
    for frame in (pd.read_parquet(path), pl.read_parquet(path)):
        assert list(frame["ragged"]) == COLUMNS["ragged"].tolist()
        assert [bytes(row) for row in frame["triples"]] == [row.tobytes() for row in COLUMNS["triples"]]


def test_only_split_columns_are_split_and_all_are_zstd_with_checksums() -> None:
    data = LAYOUT.encode_part(ROWS_R, COLUMNS)
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    split = {
        group.column(place).path_in_schema: "BYTE_STREAM_SPLIT" in group.column(place).encodings
        for place in range(group.num_columns)
    }
    assert {name for name, is_split in split.items() if is_split} == {"bytes.0", "bytes.1", "bytes.2"}
    assert {group.column(place).compression for place in range(group.num_columns)} == {"ZSTD"}
    damaged = bytearray(data)
    damaged[group.column(1).data_page_offset + 40] ^= 1
    with pytest.raises(CorruptObject, match="part"):
        LAYOUT.decode_part(bytes(damaged), 3, 10, "part")


@pytest.mark.parametrize("rows", [[2, 4, 9], [3, 4, 10], [3, 3, 9], [4, 3, 9]])
def test_rows_of_other_places_are_refused(rows: list[int]) -> None:
    data = LAYOUT.encode_part(np.array(rows), COLUMNS)
    with pytest.raises(CorruptObject, match="holds other rows"):
        LAYOUT.decode_part(data, 3, 10, "part")


def test_bytes_that_fill_no_word_must_be_zero() -> None:
    other = PartLayout(columns=(Column(**{**_facts(SPLIT), "row_shape": (24,)}),))
    data = other.encode_part(ROWS_R, {"bytes": np.ones((3, 24), dtype=np.uint8)})
    with pytest.raises(CorruptObject, match="part"):
        PartLayout(columns=(SPLIT,)).decode_part(data, 3, 10, "part")


def _facts(column: Column) -> dict[str, object]:
    return {name: getattr(column, name) for name in Column.__dataclass_fields__}
