"""Parquet files: numbers, text or images in columns, whatever wrote them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.listing import FileList, list_files
from softcask.pipeline.transfer_sets.table_rows import ColumnOptions, as_list, table_rows
from softcask.pipeline.transfer_sets.tables import ParquetTables

_ENDINGS = (".parquet", ".parq", ".pq")

Paths = Annotated[tuple[ResolvedPath, ...], BeforeValidator(as_list), Field(min_length=1)]
"""One path or several."""


class ParquetOptions(ColumnOptions):
    """`kind = "parquet"`: rows of one file or many.

    Footers are read when it is opened, and row groups when their rows are asked for, a whole one at a time
    and only the columns that are named: of those read last, at least one and up to 256 MiB stay in memory.

    Attributes:
        path: A file, a folder, a pattern (`data/train-*.parquet`), a range (`part-{000..099}.parquet`), or a
            list of these; local paths or fsspec URLs.
        id_prefix: Without `id`, a row's id is `{id_prefix}-{position:08d}` over all files; by default it is
            `{file}-{row:08d}`, the file's name without its ending (its path within a folder) and the row in
            it.
    """

    kind: Literal["parquet"] = "parquet"
    path: Paths
    id_prefix: str | None = Field(default=None, min_length=1)

    def open(self) -> TransferSet:
        """Read the footers.

        Raises:
            TransferSetError: No such file, no Parquet, or columns that are not what they are named as.
        """
        files = self._files()
        return table_rows(
            self,
            ParquetTables.of(files, self.columns()),
            place=str(files.facts["name"]),
            id_prefix=self.id_prefix or "",
            prefixes=() if self.id_prefix else tuple(name.rpartition(".")[0] or name for name in files.names),
        )

    def place_facts(self) -> dict[str, Any]:
        """The files as they are now, and the ids' start."""
        return {"files": {"path": dict(self._files().facts)}, "id_prefix": self.id_prefix}

    def _files(self) -> FileList:
        return list_files(self.path, _ENDINGS)
