"""Zarr v3, as much of it as softcask writes: metadata, and shards of checksummed chunks.

The bytes follow the published specification (https://zarr-specs.readthedocs.io, core v3 and its codecs
`sharding_indexed` and `blosc`) and open in any Zarr v3 reader. They are made here rather than by a Zarr
library so that a shard exists as one deterministic object before it is published, and costs little more than
a copy.

The CRC-32C of bytes that end in their own CRC-32C is the same for all of them. A shard of nothing but checked
chunks and a checked index would thus have one CRC-32C whatever it holds, and a shard put in another's place
would pass for it. So four bytes stand between the last chunk and the index that no chunk refers to and no
reader of Zarr looks at: the CRC-32C of the chunks' checksums.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.zarr_chunks import blosc_configuration, pack
from softcask.storage_schemas.zarr_shard import ABSENT, CRC_BYTES, OpenShard, ShardGrid

CHUNK_BYTES = 1 << 20
"""Target size of an inner chunk: .4 to 3 MB reads fastest."""

Compression = Literal["none", "blosc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayout:
    """One sharded array on the row axis: a shard a unit.

    Attributes:
        column: What a row of it is.
        rows: Rows of the whole array.
        unit_rows: Rows a shard.
        compression: Of each chunk.
    """

    column: Column
    rows: int
    unit_rows: int
    compression: Compression = "none"

    @property
    def chunk_rows(self) -> int:
        """Rows an inner chunk: the largest divisor of `unit_rows` that keeps a chunk to its target size."""
        return _chunk_rows(self.unit_rows, self.column)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk, without its checksum."""
        return self.chunk_rows * self.column.row_bytes

    def shard_key(self, index: int) -> str:
        """Key of a unit's shard, relative to the logits group."""
        return "/".join((self.column.name, "c", str(index), *("0" for _ in self.column.row_shape)))

    def metadata(self) -> bytes:
        """The array's `zarr.json`; rows without logits read as NaN, or 0 among integers."""
        row_shape = list(self.column.row_shape)
        plain: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
        checksum: dict[str, Any] = {"name": "crc32c"}
        sharding = {
            "chunk_shape": [self.chunk_rows, *row_shape],
            "codecs": [plain, *self._compressors(), checksum],
            "index_codecs": [plain, checksum],
            "index_location": "end",
        }
        return _document(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": [self.rows, *row_shape],
                "data_type": self.column.dtype.name,
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [self.unit_rows, *row_shape]},
                },
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": "NaN" if self.column.dtype.kind == "f" else 0,
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
                "attributes": {},
                "dimension_names": list(self.column.dimension_names),
                "storage_transformers": [],
            }
        )

    def encode_shard(self, rows: NDArray[Any]) -> bytes:
        """One unit's rows `[n, *row_shape]`, n <= `unit_rows`, as a shard: chunks, their seal, their index.

        Chunks that lie wholly beyond the rows are left out; the last one is filled up with blank rows.
        """
        rows = np.ascontiguousarray(rows, dtype=self.column.dtype)
        chunks = self.unit_rows // self.chunk_rows
        index = np.full((chunks, 2), ABSENT, dtype="<u8")
        parts: list[Any] = []
        checksums, end = b"", 0
        for number, first in enumerate(range(0, len(rows), self.chunk_rows)):
            chunk = self._encoded(rows[first : first + self.chunk_rows])
            checksums += (checksum := _crc_bytes(chunk))
            parts += [chunk, checksum]
            index[number] = (end, size := len(chunk) + CRC_BYTES)
            end += size
        index_bytes = index.tobytes()
        return b"".join([*parts, _crc_bytes(checksums), index_bytes, _crc_bytes(index_bytes)])

    def grid(self, rows: int) -> ShardGrid:
        """How a shard of so many rows is cut, for `OpenShard`."""
        return ShardGrid(
            rows=rows,
            row_bytes=self.column.row_bytes,
            itemsize=self.column.dtype.itemsize,
            chunk_rows=self.chunk_rows,
            chunks=self.unit_rows // self.chunk_rows,
            packed=self.compression == "blosc",
        )

    def decode_shard(self, data: bytes | NDArray[np.uint8], rows: int, key: str) -> NDArray[Any]:
        """The first `rows` rows `[rows, *row_shape]` of a shard, each chunk's checksum verified.

        Args:
            data: A whole shard.
            rows: Rows that its unit has.
            key: Name of the object, for messages.

        Raises:
            CorruptObject: Cut short, a checksum does not match, or chunks lie elsewhere than this layout has
            them.
        """
        raw = np.frombuffer(data, dtype=np.uint8)
        shard = OpenShard(raw, self.grid(rows), key)
        values = np.empty((rows, *self.column.row_shape), dtype=self.column.dtype)
        shard.copy(0, rows, values.reshape(-1).view(np.uint8))
        return values

    def _compressors(self) -> list[dict[str, Any]]:
        if self.compression == "none":
            return []
        configuration = blosc_configuration(self.column.dtype.itemsize, self.chunk_bytes)
        return [{"name": "blosc", "configuration": configuration}]

    def _encoded(self, chunk: NDArray[Any]) -> NDArray[np.uint8] | bytes:
        plain = self._filled(chunk).reshape(-1).view(np.uint8)
        return pack(plain, self.column.dtype.itemsize) if self.compression == "blosc" else plain

    def _filled(self, chunk: NDArray[Any]) -> NDArray[Any]:
        if len(chunk) == self.chunk_rows:
            return chunk
        full = self.column.blank(self.chunk_rows)
        full[: len(chunk)] = chunk
        return full


def check_unit_rows(unit_rows: int, columns: Iterable[Column]) -> None:
    """Refuse a length of units that has no divisor near the target size of a chunk.

    A prime one gives chunks of one row each: slow to read, and an index as large as the rows.

    Raises:
        StoreError: Chunks would be less than an eighth of their target size; names the nearest good lengths.
    """
    for column in columns:
        if _divides_well(unit_rows, column):
            continue
        below = next(rows for rows in range(unit_rows - 1, 0, -1) if _divides_well(rows, column))
        above = next(rows for rows in itertools.count(unit_rows + 1) if _divides_well(rows, column))
        raise StoreError(
            f"units of {unit_rows} rows fall into chunks of {_chunk_rows(unit_rows, column)} rows, where "
            f"{_most_chunk_rows(column)} rows of {column.name!r} make a chunk of the right size. "
            f"Set unit_rows to {below} or {above}, or to a multiple of {_most_chunk_rows(column)}"
        )


def _most_chunk_rows(column: Column) -> int:
    return max(1, CHUNK_BYTES // column.row_bytes)


def _chunk_rows(unit_rows: int, column: Column) -> int:
    most = min(unit_rows, _most_chunk_rows(column))
    return next(rows for rows in range(most, 0, -1) if unit_rows % rows == 0)


def _divides_well(unit_rows: int, column: Column) -> bool:
    most = _most_chunk_rows(column)
    return unit_rows <= most or 8 * _chunk_rows(unit_rows, column) >= most


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The `zarr.json` of a group."""
    return _document({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _document(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode()


def _crc_bytes(data: bytes | NDArray[np.uint8]) -> bytes:
    return crc32c(data).to_bytes(CRC_BYTES, "little")
