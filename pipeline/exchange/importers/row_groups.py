"""Rows of Parquet files by number, a row group in memory at a time: in order each is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import existing
from softcask.storage_schemas.errors import ExchangeError

_MOST_BYTES = 8 << 30


@dataclass(slots=True)
class RowGroups:
    """The rows of some files, numbered from 0 over all.

    Attributes:
        paths: The files, in order.
        starts: First row of each row group, and behind them the number of all rows.
        groups: File and number within it, of each row group.
    """

    paths: tuple[Path, ...]
    starts: NDArray[np.int64]
    groups: tuple[tuple[int, int], ...]
    _held: tuple[int, tuple[str, ...], pa.Table] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> RowGroups:
        """Read the footers.

        Raises:
            ExchangeError: A file is no Parquet, or a row group would not fit into memory.
        """
        rows, groups = [0], []
        for number, path in enumerate(paths):
            with _opened(path) as file:
                for group in range(file.metadata.num_row_groups):
                    facts = file.metadata.row_group(group)
                    if facts.total_byte_size > _MOST_BYTES:
                        raise ExchangeError(
                            f"{path}: row group {group} unpacks to {facts.total_byte_size} bytes; at most "
                            f"{_MOST_BYTES} are read at once: write it with smaller row groups"
                        )
                    rows.append(facts.num_rows)
                    groups.append((number, group))
        return cls(tuple(paths), np.cumsum(rows), tuple(groups))

    def __len__(self) -> int:
        """All rows."""
        return int(self.starts[-1])

    def schema(self, path: Path) -> pa.Schema:
        """Columns of one file."""
        with _opened(path) as file:
            return file.schema_arrow

    def place(self, row: int) -> str:
        """File and row within it, for messages."""
        number, _ = self.groups[self.group_of(row)]
        first = next(group for group, (file, _) in enumerate(self.groups) if file == number)
        return f"{self.paths[number]}: row {row - int(self.starts[first])}"

    def group_of(self, row: int) -> int:
        """The row group that a row lies in."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """One row group; the last one read is kept.

        Raises:
            ExchangeError: It is damaged.
        """
        if self._held is None or self._held[:2] != (group, tuple(columns)):
            number, index = self.groups[group]
            path = self.paths[number]
            with _opened(path) as file:
                try:
                    table = file.read_row_group(index, columns=list(columns), use_threads=False)
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise ExchangeError(f"{path}: row group {index} cannot be read: {error}") from error
            if len(table) != (wanted := int(self.starts[group + 1] - self.starts[group])):
                raise ExchangeError(
                    f"{path}: row group {index} has {len(table)} rows, its footer says {wanted}"
                )
            self._held = group, tuple(columns), table.combine_chunks()
        return self._held[2]

    def take(self, rows_B: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """These rows, in this order; fastest where they rise."""
        group_B = np.searchsorted(self.starts, rows_B, side="right") - 1
        order_B = np.argsort(group_B, kind="stable")
        parts = []
        for group in np.unique(group_B).tolist():
            mine = rows_B[order_B][group_B[order_B] == group]
            parts.append(self.read(group, columns).take(pa.array(mine - self.starts[group])))
        back_B = np.empty_like(order_B)
        back_B[order_B] = np.arange(len(order_B))
        return pa.concat_tables(parts).take(pa.array(back_B)).combine_chunks()


def parquet_files(path: Path) -> list[Path]:
    """A file itself, or the Parquet files of a folder, `data_2` before `data_10`.

    Raises:
        ExchangeError: Nothing stands there, or a folder without such files.
    """
    if not existing(path, "file or folder").is_dir():
        return [path]
    found = sorted(path.glob("*.parquet"), key=lambda file: (len(file.name), file.name))
    if not found:
        raise ExchangeError(f"{path}: no .parquet file in this folder")
    return found


def lists_of(
    column: pa.ChunkedArray, name: str, place: Callable[[int], str]
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Lengths of a column's lists, and all their elements.

    Args:
        column: Rows of it, at least one.
        name: What it is called, for messages.
        place: File and row of the n-th of them, for messages.

    Raises:
        ExchangeError: Not lists of numbers, or a null among them; names file and row.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not _is_list(array.type) or not _is_number(array.type.value_type):
        raise ExchangeError(f"{place(0)} has {array.type} as {name}, expected lists of numbers")
    for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[:1].tolist():
        raise ExchangeError(f"{place(row)} has null as {name}, expected a list of numbers")
    lengths, flat = pc.list_value_length(array).to_numpy(zero_copy_only=False), array.flatten()
    for element in np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[:1].tolist():
        row = int(np.searchsorted(np.cumsum(lengths), element, side="right"))
        raise ExchangeError(f"{place(row)} has null among its {name}, expected numbers")
    return lengths.astype(np.int64), flat.to_numpy(zero_copy_only=False)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ExchangeError(f"{path}: not a readable Parquet file: {error}") from error
