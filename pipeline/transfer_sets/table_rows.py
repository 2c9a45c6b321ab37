"""The transfer set behind every source whose rows lie in columns of tables: Parquet, Arrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from softcask.pipeline.transfer_sets.arrow_strings import ArrowStrings
from softcask.pipeline.transfer_sets.base import RowBatch, SourceOptions
from softcask.pipeline.transfer_sets.columns import (
    CellColumn,
    ColumnReader,
    column_reader,
    is_text_type,
    plain,
    storage_type,
)
from softcask.pipeline.transfer_sets.identified import IdentifiedRows, blank_not_finite
from softcask.pipeline.transfer_sets.images import ImageOptions, image_decoder
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.pipeline.transfer_sets.tables import Tables, pieces, whole_column
from softcask.pipeline.transfer_sets.text import is_text
from softcask.storage_schemas.errors import TransferSetError

_FIRST_BLOCKS = 4
_FIRST_ROWS = 64


def as_list(value: Any) -> Any:
    """A string as a list of it; what else is written is left to be checked."""
    return [value] if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(as_list), Field(min_length=1)]
"""One column's name, or several."""


class ColumnOptions(SourceOptions):
    """What sources that read columns have in common.

    Attributes:
        input: The column of inputs: images, lists of numbers or text; or several columns, of a number or a
            text each.
        label: Column of class indices, or of class names where `label_names` lists them; null is no label.
        label_names: Class names in the order of their indices.
        id: Column of sample ids, strings or integers; they must not repeat.
        image: What images are brought to.
        threads: How many images are decoded at once; by default as many as there are cores, up to 8.
    """

    input: Columns
    label: str | None = None
    label_names: tuple[str, ...] | None = None
    id: str | None = None
    image: ImageOptions = ImageOptions()
    threads: int | None = Field(default=None, ge=1)

    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.input, *(name for name in (self.label, self.id) if name is not None))

    def place_facts(self) -> dict[str, Any]:
        """What tells the state of the files, and what else the rows and ids depend on."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows(IdentifiedRows):
    """Rows of tables.

    Attributes:
        tables: Where they lie.
        inputs: Input columns.
        reader: What makes rows of them.
    """

    tables: Tables
    inputs: tuple[str, ...]
    reader: ColumnReader

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order; rows that fail are problems.

        Raises:
            TransferSetError: A position outside the set, or a file that fails.
        """
        self.check_positions(positions_B)
        inputs_B = np.zeros((len(positions_B), *self.input_shape), self.input_dtype)
        problems: dict[int, str] = {}
        for places, rows in pieces(self.tables, positions_B, self.inputs):
            problems |= self.reader.read(rows, inputs_B, places)
        if problems:
            inputs_B[list(problems)] = "" if is_text(self.input_dtype) else 0
        return RowBatch(inputs_B=inputs_B, problems=blank_not_finite(inputs_B) | problems)


@dataclass(frozen=True, slots=True)
class FileIds(Sequence[str]):
    """Ids made of a file's name and the row within it, which stay when files are added.

    Attributes:
        tables: The files.
        prefixes: Start of the ids of each file.
    """

    tables: Tables
    prefixes: tuple[str, ...]

    def __len__(self) -> int:
        """Rows of all files."""
        return int(self.tables.starts[-1])

    @overload
    def __getitem__(self, rows: int) -> str: ...
    @overload
    def __getitem__(self, rows: slice) -> list[str]: ...
    def __getitem__(self, rows: int | slice) -> str | list[str]:
        """Ids of a row, or of rows."""
        if isinstance(rows, int):
            return self[rows : rows + 1][0]
        asked = np.arange(len(self))[rows]
        blocks = np.searchsorted(self.tables.starts, asked, side="right") - 1
        files = self.tables.file_of_block[blocks]
        first_block = np.searchsorted(self.tables.file_of_block, files)
        within = asked - self.tables.starts[first_block]
        return [
            f"{self.prefixes[file]}-{row:08d}"
            for file, row in zip(files.tolist(), within.tolist(), strict=True)
        ]


def table_rows(
    options: ColumnOptions,
    tables: Tables,
    *,
    place: str,
    id_prefix: str = "",
    prefixes: tuple[str, ...] = (),
    stored_names: tuple[str, ...] = (),
) -> TableRows:
    """The rows that options name.

    Args:
        options: Columns, and what is done to them.
        tables: Where they lie; they have all these columns.
        place: Name of the files, for messages.
        id_prefix: Start of made ids, by position over all files.
        prefixes: Start of made ids for each file, by row within it, in place of `id_prefix`.
        stored_names: Class names in the order in which the files have their indices, if they tell.

    Raises:
        TransferSetError: Columns that are no inputs, labels or ids.
    """
    first = (
        tables.block(number, options.input).slice(0, _FIRST_ROWS)
        for number in range(min(_FIRST_BLOCKS, len(tables.file_of_block)))
    )
    reader = column_reader(
        tables.schema,
        options.input,
        images=lambda: image_decoder(options.image),
        threads=options.threads,
        first=first,
        place=place,
    )
    look = partial(_facts, options, images=isinstance(reader, CellColumn))
    return TableRows(
        rows=int(tables.starts[-1]),
        input_shape=reader.shape,
        input_dtype=reader.dtype,
        classes=_classes(tables, options, stored_names, place),
        ids=_ids(tables, options.id, prefixes, place),
        id_prefix=id_prefix,
        facts=look(),
        look_again=look,
        tables=tables,
        inputs=options.input,
        reader=reader,
    )


def _facts(options: ColumnOptions, *, images: bool) -> dict[str, Any]:
    stated = options.model_dump(include={"kind", "input", "label", "label_names", "id"}, exclude_none=True)
    described = stated | {"input": list(options.input)} | options.place_facts()
    return described | ({"image": options.image.facts()} if images else {})


def _classes(
    tables: Tables, options: ColumnOptions, stored_names: tuple[str, ...], place: str
) -> Lazy[NDArray[np.int64]] | None:
    column, names = options.label, options.label_names or ()
    if column is None:
        return None
    kind = storage_type(tables.schema.field(column).type)
    if kinds.is_integer(kind) or kinds.is_boolean(kind):
        load = partial(_load_indices, tables, column, place)
        if names and stored_names and names != stored_names:
            return Lazy(partial(_load_in_order, load, stored_names, names, place))
        return Lazy(load)
    if is_text_type(kind) and names:
        return Lazy(partial(_load_named, tables, column, names, place))
    advice = "list the class names as label_names" if is_text_type(kind) else "write class indices"
    raise TransferSetError(f"{place}: label {column!r} is {kind}, expected class indices; {advice}")


def _load_indices(tables: Tables, column: str, place: str) -> NDArray[np.int64]:
    found = plain(whole_column(tables, column))
    try:
        indices: NDArray[np.int64] = found.cast(pa.int64()).fill_null(-1).to_numpy()
    except pa.ArrowInvalid as error:
        raise TransferSetError(f"{place}: label {column!r}: {error}; expected class indices") from error
    return indices


def _load_in_order(
    load: Callable[[], NDArray[np.int64]], stored: tuple[str, ...], names: tuple[str, ...], place: str
) -> NDArray[np.int64]:
    """Indices of `names` in place of those of `stored`; -1 stays."""
    found = load()
    wanted = np.array([names.index(name) if name in names else -2 for name in stored] + [-1], np.int64)
    if not len(found):
        return found
    if not -1 <= found.min() <= found.max() < len(stored):
        raise TransferSetError(
            f"{place}: labels {found.min()} to {found.max()}, expected 0 to {len(stored) - 1}, or -1 for none"
        )
    indices = wanted[found]
    if (missing := np.flatnonzero(indices == -2)).size:
        raise TransferSetError(
            f"{place}: row {missing[0]} is of class {stored[found[missing[0]]]!r}, which is none of the "
            f"{len(names)} in label_names; add it"
        )
    return indices


def _load_named(tables: Tables, column: str, names: tuple[str, ...], place: str) -> NDArray[np.int64]:
    found = plain(whole_column(tables, column)).cast(pa.large_string())
    indices = pc.index_in(found, pa.array(names, pa.large_string()))
    unknown = pc.and_(pc.is_null(indices), pc.is_valid(found))
    if pc.any(unknown).as_py():
        row = pc.index(unknown, True).as_py()
        raise TransferSetError(
            f"{place}: row {row} has label {found[row].as_py()!r}, which is none of the {len(names)} names "
            f"in label_names ({', '.join(names[:3])}, ...); add it, or correct the row"
        )
    return indices.cast(pa.int64()).fill_null(-1).to_numpy()  # type: ignore[no-any-return]


def _ids(
    tables: Tables, column: str | None, prefixes: tuple[str, ...], place: str
) -> Lazy[Sequence[str]] | None:
    if column is None:
        return Lazy(partial(FileIds, tables, prefixes)) if prefixes else None
    kind = storage_type(tables.schema.field(column).type)
    if not (kinds.is_integer(kind) or is_text_type(kind)):
        raise TransferSetError(f"{place}: id {column!r} is {kind}, expected strings or integers")
    return Lazy(partial(_load_ids, tables, column, place))


def _load_ids(tables: Tables, column: str, place: str) -> Sequence[str]:
    found = plain(whole_column(tables, column))
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise TransferSetError(f"{place}: row {row} has no id: {column!r} is null; give every row one")
    return ArrowStrings(found.cast(pa.large_string()))
