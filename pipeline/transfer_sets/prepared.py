"""What `softcask prepare` wrote: rows that were decoded once, mapped where they lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.parts import ResolvedPath
from softcask.pipeline.transfer_sets.arrays import read_header
from softcask.pipeline.transfer_sets.arrow_strings import ArrowStrings
from softcask.pipeline.transfer_sets.base import RowBatch, SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.files import file_name, local_path, open_bytes, told
from softcask.pipeline.transfer_sets.identified import IdentifiedRows
from softcask.pipeline.transfer_sets.kept import Kept, Lazy
from softcask.pipeline.transfer_sets.listing import list_files
from softcask.storage_schemas import npy, tables
from softcask.storage_schemas.errors import CorruptObject, TransferSetError
from softcask.storage_schemas.manifest import MOST_BYTES, ObjectRecord
from softcask.storage_schemas.prepared import PREPARED, PreparedManifest

_KEPT_BYTES = 512 << 20
_MAPPED = 1 << 20
"""What a mapped block counts for: there are no more than some hundred at a time."""


class PreparedOptions(SourceOptions):
    """`kind = "prepared"`: the folder that `softcask prepare --into` names.

    Ids, labels, content hashes and unreadable rows are those of the source it was made from, so that a store
    which was begun from that source goes on from here, and the other way round. A block's checksum is
    verified when it is first read.

    Attributes:
        path: Local path or fsspec URL of the folder.
    """

    kind: Literal["prepared"] = "prepared"
    path: ResolvedPath

    def open(self) -> TransferSet:
        """Read the manifest.

        Raises:
            TransferSetError: Nothing prepared stands there, or not all of it yet.
        """
        root = self.path.rstrip("/")
        facts = _facts(self)
        if not any(name == PREPARED for name in facts.pop("names")):
            raise TransferSetError(
                f"{root}: no {PREPARED}: this is no prepared transfer set, or it is not complete; run "
                "`softcask prepare` (again) with --into this folder"
            )
        try:
            manifest = PreparedManifest.from_bytes(_read(root, PREPARED, MOST_BYTES), PREPARED)
        except CorruptObject as error:
            raise TransferSetError(f"{root}: {error}; prepare it again into another folder") from error
        table = Lazy(partial(_load_rows, root, manifest.table, manifest.rows))
        return PreparedRows(
            rows=manifest.rows,
            input_shape=manifest.input_shape,
            input_dtype=np.dtype(manifest.input_dtype),
            classes=Lazy(partial(_labels, table)) if manifest.labelled else None,
            ids=Lazy(partial(_ids, table)),
            facts=facts,
            look_again=partial(_look, self),
            root=root,
            manifest=manifest,
            problems=Lazy(partial(_problems, table)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows(IdentifiedRows):
    """Rows in blocks.

    Attributes:
        root: The folder.
        manifest: What stands in it.
        problems: Position -> why that row could not be read.
    """

    root: str
    manifest: PreparedManifest
    problems: Lazy[dict[int, str]]
    _blocks: Kept[int, NDArray[Any]] = field(default_factory=lambda: Kept(_KEPT_BYTES))

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order; those that could not be read are problems still.

        Raises:
            TransferSetError: A position outside the set, or a block that is gone or damaged.
        """
        self.check_positions(positions_B)
        inputs_B = np.empty((len(positions_B), *self.input_shape), self.input_dtype)
        block_B = positions_B // self.manifest.block_rows
        for number in np.unique(block_B).tolist():
            places = np.flatnonzero(block_B == number)
            within = positions_B[places] - number * self.manifest.block_rows
            inputs_B[places] = self._block(number)[within]
        known = self.problems.get()
        found = (
            {row: known[at] for row, at in enumerate(positions_B.tolist()) if at in known} if known else {}
        )
        return RowBatch(inputs_B=inputs_B, problems=found)

    def _block(self, number: int) -> NDArray[Any]:
        mapped = local_path(self.root) is not None
        size = (lambda _: _MAPPED) if mapped else (lambda block: int(block.nbytes))
        return self._blocks.get(number, lambda: self._load(number), size)

    def _load(self, number: int) -> NDArray[Any]:
        record = self.manifest.blocks[number]
        shape = (
            min(self.manifest.block_rows, self.rows - number * self.manifest.block_rows),
            *self.input_shape,
        )
        try:
            block = _verified(self.root, record)
        except CorruptObject as error:
            raise TransferSetError(f"{self.root}: {error}; prepare it again into another folder") from error
        if block.shape != shape or block.dtype.newbyteorder("=") != self.input_dtype:
            raise TransferSetError(
                f"{self.root}/{record.key}: {block.dtype} {list(block.shape)}, expected {self.input_dtype} "
                f"{list(shape)}"
            )
        return block


def _verified(root: str, record: ObjectRecord) -> NDArray[Any]:
    """A block, its checksum verified; mapped where that can be."""
    url = f"{root}/{record.key}"
    path = local_path(url)
    if path is None:
        return npy.from_bytes(record.check(_read(root, record.key, record.size)), record.key)
    header = read_header(path, "")
    with told(url):
        record.check(np.memmap(path, np.uint8, "r"))  # type: ignore[arg-type]
    return header.load()


def _read(root: str, key: str, most: int) -> bytes:
    with open_bytes(f"{root}/{key}") as stream:
        return stream.read(most + 1)


def _look(options: PreparedOptions) -> dict[str, Any]:
    return {name: value for name, value in _facts(options).items() if name != "names"}


def _facts(options: PreparedOptions) -> dict[str, Any]:
    found = list_files([options.path], (".npy", ".json", ".parquet"))
    path = dict(found.facts) | {"name": file_name(options.path.rstrip("/"))}
    return {"kind": options.kind, "files": {"path": path}, "names": found.names}


def _load_rows(root: str, record: ObjectRecord, rows: int) -> pa.Table:
    try:
        data = record.check(_read(root, record.key, record.size))
        return tables.from_bytes(data, tables.ROWS, record.key, rows=rows)
    except CorruptObject as error:
        raise TransferSetError(f"{root}: {error}; prepare it again into another folder") from error


def _labels(table: Lazy[pa.Table]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = table.get()["label"].cast(pa.int64()).fill_null(-1).to_numpy()
    return labels


def _ids(table: Lazy[pa.Table]) -> Sequence[str]:
    return ArrowStrings(table.get()["sample_id"])


def _problems(table: Lazy[pa.Table]) -> dict[int, str]:
    reasons = table.get()["quarantine"]
    if reasons.null_count == len(reasons):
        return {}
    return {place: reason for place, reason in enumerate(reasons.to_pylist()) if reason is not None}
