"""Rows of tables in files, a block at a time: a row group of Parquet, a batch of Arrow's own format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.files import local_path, open_ranges, told
from softcask.pipeline.transfer_sets.kept import Kept
from softcask.pipeline.transfer_sets.listing import FileList
from softcask.storage_schemas.errors import TransferSetError

_KEPT_BYTES = 256 << 20
_MOST_BLOCK_BYTES = 8 << 30
_REQUESTS = 16


class Tables(Protocol):
    """Files of one schema, their rows numbered from 0 over all."""

    @property
    def files(self) -> FileList:
        """The files, in order."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of all."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """First row of each block, and behind them the number of all rows."""

    @property
    def file_of_block(self) -> NDArray[np.int64]:
        """Number of the file of each block."""

    def block(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a block.

        Raises:
            TransferSetError: It is damaged, or not what it was when the file was opened.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetTables:
    """Parquet files; the row groups that were read last are kept, at least one and 256 MiB of them.

    Attributes:
        files: In order.
        schema: Columns of all.
        starts: First row of each row group, and behind them the number of all rows.
        file_of_block: File of each row group.
        group_of_block: Its number within the file.
    """

    files: FileList
    schema: pa.Schema
    starts: NDArray[np.int64]
    file_of_block: NDArray[np.int64]
    group_of_block: NDArray[np.int64]
    _groups: Kept[tuple[int, tuple[str, ...]], pa.Table] = field(default_factory=lambda: Kept(_KEPT_BYTES))
    _footers: Kept[int, pq.FileMetaData] = field(default_factory=lambda: Kept(_KEPT_BYTES >> 3))

    @classmethod
    def of(cls, files: FileList, columns: Sequence[str]) -> ParquetTables:
        """Read all footers.

        Args:
            files: The files.
            columns: Columns that must be of one type in all of them.

        Raises:
            TransferSetError: A file is no Parquet, or its columns are others than the first one's.
        """
        with ThreadPoolExecutor(_REQUESTS) as threads:
            footers = list(threads.map(_footer, files.urls))
        rows, places = [0], []
        schema = footers[0].schema.to_arrow_schema()
        for file, footer in enumerate(footers):
            _check_same(schema, footer.schema.to_arrow_schema(), columns, files.urls[0], files.urls[file])
            for group in range(footer.num_row_groups):
                facts = footer.row_group(group)
                if facts.total_byte_size > _MOST_BLOCK_BYTES:
                    raise TransferSetError(
                        f"{files.urls[file]}: row group {group} unpacks to {facts.total_byte_size} bytes; at "
                        f"most {_MOST_BLOCK_BYTES} are read at once: write it with smaller row groups"
                    )
                rows.append(facts.num_rows)
                places.append((file, group))
        places_G2 = np.array(places, np.int64).reshape(-1, 2)
        return cls(
            files=files,
            schema=schema,
            starts=np.cumsum(rows, dtype=np.int64),
            file_of_block=places_G2[:, 0],
            group_of_block=places_G2[:, 1],
        )

    def block(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a row group; see `Tables.block`."""
        return self._groups.get(
            (number, tuple(columns)), lambda: self._read(number, columns), lambda table: table.nbytes
        )

    def _read(self, number: int, columns: Sequence[str]) -> pa.Table:
        file, group = int(self.file_of_block[number]), int(self.group_of_block[number])
        url = self.files.urls[file]
        footer = self._footers.get(file, lambda: _footer(url), lambda footer: footer.serialized_size)
        with _parquet(url, footer) as opened, _readable(url, f"row group {group}"):
            table = opened.read_row_group(group, columns=list(columns), use_threads=False)
        if len(table) != (wanted := int(self.starts[number + 1] - self.starts[number])):
            raise TransferSetError(f"{url}: row group {group} has {len(table)} rows, expected {wanted}")
        return table.select(list(columns)).combine_chunks()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowTables:
    """Files of Arrow's own format, as `datasets` writes them: mapped where they are local, else read whole.

    Attributes:
        files: In order.
        schema: Columns of all.
        starts: First row of each batch, and behind them the number of all rows.
        file_of_block: File of each batch.
        batch_of_block: Its number within the file.
    """

    files: FileList
    schema: pa.Schema
    starts: NDArray[np.int64]
    file_of_block: NDArray[np.int64]
    batch_of_block: NDArray[np.int64]
    _tables: Kept[int, list[pa.RecordBatch]] = field(default_factory=lambda: Kept(_KEPT_BYTES))

    @classmethod
    def of(cls, files: FileList, columns: Sequence[str]) -> ArrowTables:
        """Read the headers of all batches.

        Args:
            files: The files.
            columns: Columns that must be of one type in all of them.

        Raises:
            TransferSetError: A file is not of this format, or its columns are others than the first one's.
        """
        rows, places, schema = [0], [], None
        for file, url in enumerate(files.urls):
            found, batches = _arrow(url)
            schema = schema or found
            _check_same(schema, found, columns, files.urls[0], url)
            rows += [len(batch) for batch in batches]
            places += [(file, number) for number in range(len(batches))]
        places_G2 = np.array(places, np.int64).reshape(-1, 2)
        return cls(
            files=files,
            schema=schema,
            starts=np.cumsum(rows, dtype=np.int64),
            file_of_block=places_G2[:, 0],
            batch_of_block=places_G2[:, 1],
        )

    def block(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a batch; see `Tables.block`."""
        url = self.files.urls[file := int(self.file_of_block[number])]
        batches = self._tables.get(file, lambda: _arrow(url)[1], lambda found: _held(url, found))
        at = int(self.batch_of_block[number])
        wanted = int(self.starts[number + 1] - self.starts[number])
        if at >= len(batches) or len(batches[at]) != wanted:
            raise TransferSetError(f"{url}: batch {at} is not the {wanted} rows it was when it was opened")
        return pa.Table.from_batches([batches[at]]).select(list(columns))


def pieces(
    tables: Tables, positions_B: NDArray[np.int64], columns: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """Rows block by block, each block read once.

    Args:
        tables: Where they lie.
        positions_B: Numbers of the rows.
        columns: What is wanted of them.

    Yields:
        Places in the batch, and the rows that belong there.
    """
    block_B = np.searchsorted(tables.starts, positions_B, side="right") - 1
    for number in np.unique(block_B).tolist():
        places = np.flatnonzero(block_B == number)
        within = positions_B[places] - tables.starts[number]
        yield places, tables.block(number, columns).take(pa.array(within))


def whole_column(tables: Tables, column: str) -> pa.ChunkedArray:
    """One column of all rows."""
    with ThreadPoolExecutor(4) as threads:
        blocks = threads.map(
            lambda number: tables.block(number, [column])[column], range(len(tables.file_of_block))
        )
        chunks = [chunk for block in blocks for chunk in block.chunks]
    return pa.chunked_array(chunks, tables.schema.field(column).type)


def _footer(url: str) -> pq.FileMetaData:
    with _parquet(url) as opened:
        return opened.metadata


@contextmanager
def _parquet(url: str, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    if (path := local_path(url)) is not None:
        with (
            _readable(url),
            pq.ParquetFile(path, metadata=footer, memory_map=True, page_checksum_verification=True) as file,
        ):
            yield file
        return
    with open_ranges(url) as stream, _readable(url):
        yield pq.ParquetFile(stream, metadata=footer, pre_buffer=True, page_checksum_verification=True)


def _arrow(url: str) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and batches, of a stream (as `datasets` writes) or of a file with a footer."""
    path = local_path(url)
    with _readable(url):
        if path is not None:
            source: Any = pa.memory_map(path)
        else:
            with open_ranges(url) as stream:
                source = pa.BufferReader(stream.read())
        opener: Callable[[Any], Any] = pa.ipc.open_file if source.read(6) == b"ARROW1" else pa.ipc.open_stream
        source.seek(0)
        reader = opener(source)
        if opener is pa.ipc.open_file:
            return reader.schema, [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return reader.schema, list(reader)


def _held(url: str, batches: list[pa.RecordBatch]) -> int:
    return 0 if local_path(url) is not None else sum(batch.nbytes for batch in batches)


@contextmanager
def _readable(url: str, part: str = "") -> Iterator[None]:
    with told(url):
        try:
            yield
        except (FileNotFoundError, PermissionError, TransferSetError):
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            what = f"{part} cannot" if part else "cannot"
            raise TransferSetError(f"{url}: {what} be read: {error}; fetch or write it again") from error


def _check_same(schema: pa.Schema, found: pa.Schema, columns: Sequence[str], first: str, url: str) -> None:
    for column in columns:
        for each, place in ((schema, first), (found, url)):
            if column not in each.names:
                raise TransferSetError(
                    f"{place}: no column {column!r}; it has {', '.join(each.names)}; name one of these"
                )
        if found.field(column).type != schema.field(column).type:
            raise TransferSetError(
                f"{url}: column {column!r} is {found.field(column).type}, in {first} it is "
                f"{schema.field(column).type}; expected one type in all files; write them alike"
            )
