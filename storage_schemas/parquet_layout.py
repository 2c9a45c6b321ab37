"""Logits in Parquet parts, one a unit: rows that have logits, with their places in the segment.

For codecs whose columns compress well byte by byte, or whose rows differ in length. A column of one value a
row is a plain Parquet column; any other is a string of bytes (of fixed length, but for ragged ones), as numpy
holds it, little-endian.

A column of rows of bytes that are to be split lies in int64 columns, `NAME.0`, `NAME.1`, ..., one for each 8
bytes of a row, the last filled up with zeros. Parquet splits strings of bytes, too, but neither DuckDB nor
Polars reads them; and int64 are read faster.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softcask.storage_schemas import tables
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject

ROW = "row"
_GROUP_ROWS, _PAGE_BYTES = 65_536, 1 << 20
_WORD = np.dtype("<i8")
_LEVEL, _SPLIT_LEVEL = 1, 13
"""zstd's. Most of what is split is noise, in which faster levels take chance repeats for matches and lose 4
to 8 % by it; 13 does not, at some 25 us for a row of 256 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLayout:
    """Parts of one teacher's logits over one segment and view.

    Attributes:
        columns: What a codec writes, in order; after `row`, a row's place in its segment.
    """

    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a part."""
        fields = [
            pa.field(name, arrow_type, nullable=False)
            for column in self.columns
            for name, arrow_type in _arrow_types(column).items()
        ]
        return pa.schema([pa.field(ROW, pa.int64(), nullable=False), *fields])

    def encode_part(self, rows_R: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> bytes:
        """R rows as one Parquet file.

        Args:
            rows_R: Their places in the segment, rising.
            columns: Their values by name, `[R, *row_shape]`.
        """
        arrays = [pa.array(rows_R, pa.int64())]
        for column in self.columns:
            arrays += _to_arrow(column, columns[column.name])
        split = [name for column in self.columns if column.split for name in _arrow_types(column)]
        levels = {name: _SPLIT_LEVEL if name in split else _LEVEL for name in self.schema.names}
        sink = io.BytesIO()
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=self.schema),
            sink,
            row_group_size=_GROUP_ROWS,
            compression="zstd",
            compression_level=levels,
            use_dictionary=False,
            use_byte_stream_split=split,
            column_encoding={ROW: "DELTA_BINARY_PACKED"},
            write_statistics=[ROW],
            data_page_size=_PAGE_BYTES,
            write_page_checksum=True,
            write_page_index=True,
            store_schema=True,
        )
        return sink.getvalue()

    def decode_part(
        self, data: bytes | pa.Buffer, start: int, stop: int, key: str
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """The rows of a part, and their values by name.

        Args:
            data: A whole Parquet file.
            start: First row of its unit.
            stop: End of the unit's rows.
            key: Name of the object, for messages.

        Raises:
            CorruptObject: Not such a part, or its rows do not rise from `start` to below `stop`.
        """
        table = tables.from_bytes(data, self.schema, key)
        rows_R = table[ROW].to_numpy()
        if len(rows_R) and not (rows_R[0] >= start and rows_R[-1] < stop and (np.diff(rows_R) > 0).all()):
            raise CorruptObject(f"{key} holds other rows than {start} to {stop - 1} in order")
        return rows_R, {column.name: _from_arrow(column, table, key) for column in self.columns}


def _in_words(column: Column) -> bool:
    return column.split and bool(column.row_shape)


def _words(column: Column) -> int:
    return -(-column.row_bytes // _WORD.itemsize)


def _arrow_types(column: Column) -> dict[str, pa.DataType]:
    """The Parquet columns, by name, that hold a column."""
    if _in_words(column):
        return {f"{column.name}.{word}": pa.int64() for word in range(_words(column))}
    if column.dtype.hasobject:
        return {column.name: pa.binary()}
    fixed = pa.binary(column.row_bytes) if column.row_shape else pa.from_numpy_dtype(column.dtype)
    return {column.name: fixed}


def _to_arrow(column: Column, values: NDArray[Any]) -> list[pa.Array]:
    types = list(_arrow_types(column).values())
    if column.dtype.hasobject or not column.row_shape:
        return [pa.array(values, types[0])]
    memory_Rb = np.ascontiguousarray(values, dtype=column.dtype).view(np.uint8)
    memory_Rb = memory_Rb.reshape(len(values), column.row_bytes)
    if _in_words(column):
        whole_Rb = np.zeros((len(values), _WORD.itemsize * len(types)), dtype=np.uint8)
        whole_Rb[:, : column.row_bytes] = memory_Rb
        return [pa.array(words_R) for words_R in np.ascontiguousarray(whole_Rb.view(_WORD).T)]
    return [pa.FixedSizeBinaryArray.from_buffers(types[0], len(values), [None, pa.py_buffer(memory_Rb.data)])]


def _from_words(column: Column, table: pa.Table, key: str) -> NDArray[Any]:
    whole_Rw = np.empty((len(table), _words(column)), dtype=_WORD)
    for word, name in enumerate(_arrow_types(column)):
        whole_Rw[:, word] = table[name].to_numpy()
    whole_Rb = whole_Rw.view(np.uint8)
    if whole_Rb[:, column.row_bytes :].any():
        raise CorruptObject(f"{key} has bytes after the end of rows of {column.name}; it is not trusted")
    memory_Rb = np.ascontiguousarray(whole_Rb[:, : column.row_bytes])
    return memory_Rb.view(column.dtype).reshape(len(table), *column.row_shape)


def _from_arrow(column: Column, table: pa.Table, key: str) -> NDArray[Any]:
    if _in_words(column):
        return _from_words(column, table, key)
    pieces = table[column.name]
    array = pieces.chunk(0) if pieces.num_chunks == 1 else pieces.combine_chunks()
    if column.dtype.hasobject or not column.row_shape:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    memory = array.buffers()[1]
    if memory is None or not len(array):
        return column.blank(0)
    flat = np.frombuffer(memory, np.uint8, len(array) * column.row_bytes, array.offset * column.row_bytes)
    return flat.view(column.dtype).reshape(len(array), *column.row_shape)
