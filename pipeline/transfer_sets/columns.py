"""From columns of an Arrow table to rows: numbers, lists of numbers, text, or encoded images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.decoding import Decoder, Unreadable, decode_into, put, settle
from softcask.pipeline.transfer_sets.images import ImageDecoder
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.storage_schemas.errors import TransferSetError

_BYTES = "bytes"
_NULL = "null"


class ColumnReader(Protocol):
    """Turns input columns into rows.

    Attributes:
        shape: Of a row.
        dtype: Element type.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of a row."""

    def read(self, table: pa.Table, inputs_B: NDArray[Any], places: NDArray[np.int64]) -> dict[int, str]:
        """Put the rows of a table of the input columns into a batch; says of each bad row why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellColumn:
    """A column of encoded images, bytes or structs of `bytes` and `path` as `datasets` writes them."""

    decoder: Decoder
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    threads: int | None

    def read(self, table: pa.Table, inputs_B: NDArray[Any], places: NDArray[np.int64]) -> dict[int, str]:
        """See `ColumnReader.read`."""
        cells = list(_cells(table.column(0)))
        return decode_into(self.decoder, cells, inputs_B, places.tolist(), self.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextColumns:
    """One column of text, rows of shape `[]`, or n of them, rows of shape `[n]`."""

    shape: tuple[int, ...]
    dtype = TEXT

    def read(self, table: pa.Table, inputs_B: NDArray[Any], places: NDArray[np.int64]) -> dict[int, str]:
        """See `ColumnReader.read`."""
        problems: dict[int, str] = {}
        columns = [_text(column) for column in table.columns]
        for name, column in zip(table.column_names, columns, strict=True):
            missing = places[column.is_null().to_numpy(zero_copy_only=False)].tolist()
            problems |= dict.fromkeys(missing, f"{name}: {_NULL}")
        values = [pc.fill_null(column, "").to_numpy(zero_copy_only=False).astype(TEXT) for column in columns]
        inputs_B[places] = np.stack(values, axis=1) if self.shape else values[0]
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberColumns:
    """One column of lists of numbers, of one length or nested, or several columns of a number each."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, table: pa.Table, inputs_B: NDArray[Any], places: NDArray[np.int64]) -> dict[int, str]:
        """See `ColumnReader.read`."""
        try:
            inputs_B[places] = self._rows(table)
            return {}
        except Unreadable:
            return self._one_by_one(table, inputs_B, places)

    def _rows(self, table: pa.Table) -> NDArray[Any]:
        if len(self.shape) == 1 and not is_list(table.column(0).type):
            columns = [
                _numbers(column, name) for name, column in zip(table.column_names, table.columns, strict=True)
            ]
            return np.stack([column.astype(self.dtype) for column in columns], axis=1)
        return _unnested(_array(table.column(0)), self.shape).astype(self.dtype, copy=False)

    def _one_by_one(
        self, table: pa.Table, inputs_B: NDArray[Any], places: NDArray[np.int64]
    ) -> dict[int, str]:
        problems = {}
        for row, place in enumerate(places.tolist()):
            try:
                put(self._rows(table.slice(row, 1))[0], inputs_B, place)
            except Unreadable as error:
                problems[place] = str(error)
        return problems


def column_reader(
    schema: pa.Schema,
    inputs: Sequence[str],
    *,
    images: Callable[[], ImageDecoder],
    threads: int | None,
    first: Iterator[pa.Table],
    place: str,
) -> ColumnReader:
    """How rows are read from columns of these types.

    Args:
        schema: Of the files.
        inputs: Input columns.
        images: The decoder of images, made only if there are any.
        threads: How many decode at once.
        first: The first rows of the input columns, for shapes that types do not tell.
        place: Name of the files, for messages.

    Raises:
        TransferSetError: Columns of a type that is no input, or that do not go together.
    """
    types = [storage_type(schema.field(name).type) for name in inputs]
    if len(types) == 1 and _is_image(types[0]):
        decoder = images()
        cells = chain.from_iterable(_cells(table.column(0)) for table in first)
        shape, dtype = settle(decoder, cells, f"{place}: column {inputs[0]!r}")
        return CellColumn(decoder=decoder, shape=shape, dtype=dtype, threads=threads)
    if all(map(is_text_type, types)):
        return TextColumns(shape=() if len(types) == 1 else (len(types),))
    if all(map(_is_number, types)):
        return NumberColumns(shape=(len(types),), dtype=np.result_type(*map(_numpy_type, types)))
    if len(types) == 1 and is_list(types[0]) and _is_number(_innermost(types[0])):
        shape = _list_shape(types[0], (table.column(0) for table in first), f"{place}: column {inputs[0]!r}")
        return NumberColumns(shape=shape, dtype=_numpy_type(_innermost(types[0])))
    found = ", ".join(f"{name}: {kind}" for name, kind in zip(inputs, types, strict=True))
    raise TransferSetError(
        f"{place}: input {found}; expected one column of images (bytes), one of lists of numbers, or any "
        "number of columns of numbers or of text"
    )


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type without what an extension or a dictionary adds to it."""
    while isinstance(kind, pa.BaseExtensionType) or kinds.is_dictionary(kind):
        kind = kind.value_type if kinds.is_dictionary(kind) else kind.storage_type
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether it is a list of either length of offset, or of a fixed size."""
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its storage type."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    return plain(column.cast(kind.value_type)) if kinds.is_dictionary(kind) else column


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = plain(column).combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _cells(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    for chunk in plain(column).chunks:
        if not kinds.is_struct(chunk.type):
            yield from (None if cell is None else cell.as_py() for cell in chunk)
        else:
            valid = chunk.is_valid().to_pylist()
            data = chunk.field(_BYTES)
            yield from (cell.as_py() if there else None for cell, there in zip(data, valid, strict=True))


def _text(column: pa.ChunkedArray) -> pa.Array:
    return _array(column).cast(pa.large_string())


def _numbers(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    array = _array(column)
    if array.null_count:
        raise Unreadable(f"{name}: {_NULL}")
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def _unnested(array: pa.Array, shape: tuple[int, ...]) -> NDArray[Any]:
    """Lists of numbers as `[rows, *shape]`."""
    rows = len(array)
    for axis, length in enumerate(shape):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        if array.null_count:
            raise Unreadable(_NULL)
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        if (wrong := lengths[lengths != length]).size:
            raise Unreadable(
                f"a list of {wrong[0]} where {length} are expected (axis {axis} of {list(shape)})"
            )
        array = array.flatten()
    if array.null_count:
        raise Unreadable(f"{_NULL} among its numbers")
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers.reshape(rows, *shape)


def _list_shape(kind: pa.DataType, columns: Iterator[pa.ChunkedArray], place: str) -> tuple[int, ...]:
    """Lengths of nested lists: by type where it fixes them, else those of the first row without a null."""
    rows = (row for column in columns for chunk in plain(column).chunks for row in chunk)
    for row, _ in zip(rows, repeat(None, 64), strict=False):
        shape: list[int] = []
        value = row.as_py()
        while isinstance(value, list) and value:
            shape.append(len(value))
            value = value[0]
        if value is not None and not isinstance(value, list):
            return tuple(shape)
    raise TransferSetError(
        f"{place}: none of the first rows is a list of numbers without null, so their shape is not known"
    )


def _innermost(kind: pa.DataType) -> pa.DataType:
    while is_list(kind):
        kind = storage_type(kind.value_type)
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind))


def is_text_type(kind: pa.DataType) -> bool:
    """Whether it is strings."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _is_image(kind: pa.DataType) -> bool:
    if kinds.is_struct(kind):
        return kind.get_field_index(_BYTES) >= 0 and _is_binary(kind.field(_BYTES).type)
    return _is_binary(kind)


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return found
