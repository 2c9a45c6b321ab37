"""Zarr v3, as much of it as softcask writes: metadata, and shards of checksummed chunks.

The bytes follow the published specification (https://zarr-specs.readthedocs.io, core v3 and its codec
`sharding_indexed`) and open in any Zarr v3 reader. They are made here rather than by a Zarr library so that a
shard exists as one deterministic object before it is published, and costs little more than a copy.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject, StoreError

CHUNK_BYTES = 1 << 20
"""Target size of an inner chunk: .4 to 3 MB reads fastest."""

_CRC_BYTES = 4
_ABSENT = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayout:
    """One sharded array on the row axis: a shard a unit.

    Attributes:
        column: What a row of it is.
        rows: Rows of the whole array.
        unit_rows: Rows a shard.
    """

    column: Column
    rows: int
    unit_rows: int

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
        checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": [self.chunk_rows, *row_shape],
            "codecs": checked,
            "index_codecs": checked,
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
        index = np.full((chunks, 2), _ABSENT, dtype="<u8")
        parts: list[Any] = []
        checksums = b""
        stride = self.chunk_bytes + _CRC_BYTES
        for number, first in enumerate(range(0, len(rows), self.chunk_rows)):
            chunk = self._filled(rows[first : first + self.chunk_rows]).view(np.uint8).reshape(-1)
            checksums += (checksum := _crc_bytes(chunk))
            parts += [chunk.data, checksum]
            index[number] = (number * stride, stride)
        index_bytes = index.tobytes()
        return b"".join([*parts, _crc_bytes(checksums), index_bytes, _crc_bytes(index_bytes)])

    def decode_shard(self, data: bytes, rows: int, key: str) -> NDArray[Any]:
        """The first `rows` rows `[rows, *row_shape]` of a shard, each chunk's checksum verified.

        Args:
            data: A whole shard.
            rows: Rows that its unit has.
            key: Name of the object, for messages.

        Raises:
            CorruptObject: Cut short, a checksum does not match, or chunks lie elsewhere than this layout has
            them.
        """
        chunks = self.unit_rows // self.chunk_rows
        used = -(-rows // self.chunk_rows)
        stride = self.chunk_bytes + _CRC_BYTES
        start = used * stride + _CRC_BYTES
        size = start + chunks * 16 + _CRC_BYTES
        if len(data) != size:
            raise CorruptObject(
                f"{key} has {len(data)} bytes, a shard of {rows} rows has {size}; it is damaged"
            )
        raw = np.frombuffer(data, dtype=np.uint8)
        _verify(raw[start:], f"the shard index of {key}")
        index = raw[start:-_CRC_BYTES].view("<u8").reshape(chunks, 2)
        expected = np.full((chunks, 2), _ABSENT, dtype="<u8")
        expected[:used] = [(number * stride, stride) for number in range(used)]
        if not np.array_equal(index, expected):
            raise CorruptObject(f"the shard index of {key} places its chunks otherwise than this format does")
        body = raw[: used * stride].reshape(used, stride)
        for number in range(used):
            _verify(body[number], f"chunk {number} of {key}")
        if _crc_bytes(body[:, self.chunk_bytes :].tobytes()) != data[start - _CRC_BYTES : start]:
            raise CorruptObject(f"the chunks of {key} are not those it was made of; it is damaged")
        values = np.ascontiguousarray(body[:, : self.chunk_bytes]).view(self.column.dtype)
        return values.reshape(used * self.chunk_rows, *self.column.row_shape)[:rows]

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
    return crc32c(data).to_bytes(_CRC_BYTES, "little")


def _verify(checked: NDArray[np.uint8], what: str) -> None:
    if _crc_bytes(checked[:-_CRC_BYTES]) != checked[-_CRC_BYTES:].tobytes():
        raise CorruptObject(f"{what} does not match its checksum; it is damaged")
