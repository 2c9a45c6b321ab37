"""Logits in Parquet parts, one a unit: rows that have logits, with their places in the segment.

For codecs whose columns compress well byte by byte, or whose rows differ in length. A column of one value a
row is a plain Parquet column; any other is a string of bytes (of fixed length, but for ragged ones), as numpy
holds it, little-endian.
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
_GROUP_ROWS = 16_384


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
        fields = [pa.field(column.name, _arrow_type(column), nullable=False) for column in self.columns]
        return pa.schema([pa.field(ROW, pa.int64(), nullable=False), *fields])

    def encode_part(self, rows_R: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> bytes:
        """R rows as one Parquet file.

        Args:
            rows_R: Their places in the segment, rising.
            columns: Their values by name, `[R, *row_shape]`.
        """
        arrays = [pa.array(rows_R, pa.int64())]
        arrays += [_to_arrow(column, columns[column.name]) for column in self.columns]
        split = [column.name for column in self.columns if column.split]
        sink = io.BytesIO()
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=self.schema),
            sink,
            row_group_size=_GROUP_ROWS,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            use_byte_stream_split=split,
            column_encoding={ROW: "DELTA_BINARY_PACKED"},
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
        return rows_R, {column.name: _from_arrow(column, table[column.name]) for column in self.columns}


def _arrow_type(column: Column) -> pa.DataType:
    if column.dtype.hasobject:
        return pa.binary()
    return pa.binary(column.row_bytes) if column.row_shape else pa.from_numpy_dtype(column.dtype)


def _to_arrow(column: Column, values: NDArray[Any]) -> pa.Array:
    if column.dtype.hasobject or not column.row_shape:
        return pa.array(values, _arrow_type(column))
    memory = np.ascontiguousarray(values, dtype=column.dtype)
    return pa.FixedSizeBinaryArray.from_buffers(
        _arrow_type(column), len(values), [None, pa.py_buffer(memory.data)]
    )


def _from_arrow(column: Column, pieces: pa.ChunkedArray) -> NDArray[Any]:
    array = pieces.chunk(0) if pieces.num_chunks == 1 else pieces.combine_chunks()
    if column.dtype.hasobject or not column.row_shape:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    memory = array.buffers()[1]
    if memory is None or not len(array):
        return column.blank(0)
    flat = np.frombuffer(memory, np.uint8, len(array) * column.row_bytes, array.offset * column.row_bytes)
    return flat.view(column.dtype).reshape(len(array), *column.row_shape)
