"""Zarr arrays that another tool wrote: what their `zarr.json` may say for softcask to read them.

Rows, type and units are the store's; how an array is cut, packed and named within a unit is whoever's wrote
it. Codecs are an allow-list, and a document is taken apart and put together again, so that a Zarr library is
told nothing but what stands here.

The CRC-32C of bytes that end in their own CRC-32C is one constant for all of a length. A chunk whose last
codec is `crc32c` says that it is whole, but no record can say that it is *this* one, unless a shard keeps
the seal that softcask's own have (see `zarr_layout`).
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import Part

MOST_DOCUMENT_BYTES = 1 << 20
_MOST_CHUNKS = 1 << 16
"""Of a unit: a Zarr library takes a fraction of a millisecond for each."""

Length = Annotated[int, Field(strict=True, ge=1, lt=2**48)]
Shape = Annotated[tuple[Length, ...], Field(max_length=8)]


class _Fixed(Part):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Endian(_Fixed):
    endian: Literal["little", "big"]


class _Bytes(_Fixed):
    name: Literal["bytes"]
    configuration: _Endian | None = None


class _Order(_Fixed):
    order: Annotated[tuple[Annotated[int, Field(strict=True, ge=0, lt=8)], ...], Field(max_length=8)]


class _Transpose(_Fixed):
    name: Literal["transpose"]
    configuration: _Order


class _Nothing(_Fixed):
    pass


class _Crc32c(_Fixed):
    name: Literal["crc32c"]
    configuration: _Nothing | None = None


class _GzipSettings(_Fixed):
    level: int


class _Gzip(_Fixed):
    name: Literal["gzip"]
    configuration: _GzipSettings


class _ZstdSettings(_Fixed):
    level: int
    checksum: bool = False


class _Zstd(_Fixed):
    name: Literal["zstd"]
    configuration: _ZstdSettings


class _BloscSettings(_Fixed):
    cname: Literal["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"]
    clevel: int
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    typesize: Annotated[int, Field(strict=True, ge=1, le=255)] | None = None
    blocksize: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0


class _Blosc(_Fixed):
    name: Literal["blosc"]
    configuration: _BloscSettings


_Chunked = Annotated[_Bytes | _Transpose | _Crc32c | _Gzip | _Zstd | _Blosc, Field(discriminator="name")]
_Indexed = Annotated[_Bytes | _Crc32c, Field(discriminator="name")]


class _ShardingSettings(_Fixed):
    chunk_shape: Shape
    codecs: Annotated[tuple[_Chunked, ...], Field(max_length=8)]
    index_codecs: Annotated[tuple[_Indexed, ...], Field(max_length=2)]
    index_location: Literal["start", "end"] = "end"


class _Sharding(_Fixed):
    name: Literal["sharding_indexed"]
    configuration: _ShardingSettings


_AnyCodec = Annotated[
    _Bytes | _Transpose | _Crc32c | _Gzip | _Zstd | _Blosc | _Sharding, Field(discriminator="name")
]


class _GridSettings(_Fixed):
    chunk_shape: Shape


class _Grid(_Fixed):
    name: Literal["regular"]
    configuration: _GridSettings


class _Separator(_Fixed):
    separator: Literal["/", "."]


class _KeyEncoding(_Fixed):
    name: Literal["default", "v2"]
    configuration: _Separator | None = None


class _Document(_Fixed):
    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: Shape
    data_type: str
    chunk_grid: _Grid
    chunk_key_encoding: _KeyEncoding
    fill_value: Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)] | Literal["NaN"]
    codecs: Annotated[tuple[_AnyCodec, ...], Field(min_length=1, max_length=8)]
    storage_transformers: Annotated[tuple[Any, ...], Field(max_length=0)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What was done to the numbers of a chunk, in this order.

    Attributes:
        big_endian: Whether they lie highest byte first.
        packing: `crc32c` and at most one of `gzip`, `zstd`, `blosc`, as they follow.
    """

    big_endian: bool
    packing: tuple[str, ...]

    @property
    def ends_in_checksum(self) -> bool:
        """Whether the last four bytes are the CRC-32C of those before."""
        return self.packing[-1:] == ("crc32c",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """Where a shard says where its chunks are.

    Attributes:
        at_end: Whether it stands behind the chunks; else before.
        big_endian: Whether its numbers lie highest byte first.
        checked: Whether its CRC-32C follows it.
    """

    at_end: bool
    big_endian: bool
    checked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignArray:
    """One column of a teacher's logits over a segment, as another tool has written it.

    Attributes:
        column: What a row of it is.
        rows: Rows of the whole array.
        unit_rows: Rows a unit; no object holds rows of two.
        object_shape: Rows and values that an object holds.
        chunk_shape: Of a chunk; that of an object where there are no shards.
        chain: What was done to a chunk.
        index: Of a shard; None where an object is a chunk.
        document: Its `zarr.json`, put together again from what is known.
    """

    column: Column
    rows: int
    unit_rows: int
    object_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    chain: Chain
    index: ShardIndex | None
    document: bytes
    _separator: str
    _prefix: str

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk before anything was done to it."""
        return math.prod(self.chunk_shape) * self.column.dtype.itemsize

    @property
    def chunks(self) -> int:
        """Places for chunks in an object."""
        return math.prod(self.object_shape) // math.prod(self.chunk_shape)

    def cells(self, start: int, stop: int) -> Iterator[tuple[int, ...]]:
        """Places in the grid of the objects that hold the rows of a unit."""
        rows = range(start // self.object_shape[0], -(-stop // self.object_shape[0]))
        return itertools.product(rows, *map(range, self._counts))

    def unit_bytes(self, start: int, stop: int) -> int:
        """Bytes that a unit comes to, its chunks filled up."""
        rows = -(-(stop - start) // self.object_shape[0])
        return rows * math.prod(self._counts) * self.chunks * self.chunk_bytes

    def key(self, cell: tuple[int, ...]) -> str:
        """Key of an object, relative to the array."""
        return self._prefix + self._separator.join(map(str, cell))

    @property
    def _counts(self) -> tuple[int, ...]:
        return _counts(self.column.row_shape, self.object_shape[1:])


def parse(data: bytes, column: Column, rows: int, unit_rows: int, key: str) -> ForeignArray:
    """The array that a foreign `zarr.json` describes, if it is one that softcask reads.

    Args:
        data: The document, of at most `MOST_DOCUMENT_BYTES`; untrusted.
        column: What the store says that it holds.
        rows: Rows of the segment.
        unit_rows: Rows a unit.
        key: Its name, for messages.

    Raises:
        CorruptObject: No such document, or not of this column, these rows and these units.
        StoreError: A layout that softcask does not read; the message says why.
    """
    document = _validated(data, key)
    _refuse_other_array(document, column, rows, key)
    object_shape = document.chunk_grid.configuration.chunk_shape
    sharding = next((codec for codec in document.codecs if isinstance(codec, _Sharding)), None)
    if sharding is not None:
        if len(document.codecs) > 1:
            raise _unread(key, "codecs before or behind its shards")
        chunk_shape, index = sharding.configuration.chunk_shape, _index(sharding.configuration, key)
        chain = _chain(sharding.configuration.codecs, column, key)
    else:
        chunk_shape, index, chain = object_shape, None, _chain(document.codecs, column, key)
        if chain.ends_in_checksum:
            raise constant_checksums(key, "chunks")
    _check_shapes(object_shape, chunk_shape, column, rows, unit_rows, key)
    encoding = document.chunk_key_encoding
    default = "/" if encoding.name == "default" else "."
    separator = encoding.configuration.separator if encoding.configuration else default
    return ForeignArray(
        column=column,
        rows=rows,
        unit_rows=unit_rows,
        object_shape=object_shape,
        chunk_shape=chunk_shape,
        chain=chain,
        index=index,
        document=json.dumps(
            {**document.model_dump(mode="json", exclude_none=True), "attributes": {}}
        ).encode(),
        _separator=separator,
        _prefix=f"c{separator}" if encoding.name == "default" else "",
    )


def constant_checksums(what: str, parts: str) -> StoreError:
    """Why a layout is refused in which records cannot tell one object from another."""
    return StoreError(
        f"{what}: its {parts} end in their own CRC-32C and nothing else in an object depends on what they "
        "hold, so that all objects of a size have the same CRC-32C, and a record cannot tell this one from "
        "another in its place. Write it without the codec crc32c (records hold a checksum of every object), "
        "or in shards with the seal that docs/format.md describes"
    )


def _validated(data: bytes, key: str) -> _Document:
    try:
        body = json.loads(data)
        for name in ("attributes", "dimension_names"):  # which say nothing of where numbers are
            body.pop(name, None)
        return _Document.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:8])
        raise StoreError(
            f"{key} describes an array that softcask does not read: {problems}. It reads regular grids, "
            "shards of one level, and the codecs bytes, transpose, gzip, zstd, blosc and crc32c"
        ) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptObject(f"{key} is not the document of a Zarr array: {error}") from error


def _refuse_other_array(document: _Document, column: Column, rows: int, key: str) -> None:
    found = document.shape, document.data_type
    expected = (rows, *column.row_shape), column.dtype.name
    if found != expected:
        raise CorruptObject(
            f"{key} describes {found[1]} of shape {list(found[0])}; the store's manifests say "
            f"{expected[1]} of {list(expected[0])}"
        )
    if document.fill_value == "NaN" and column.dtype.kind != "f":
        raise CorruptObject(f"{key} fills {column.dtype.name} up with NaN")


def _chain(codecs: tuple[Any, ...], column: Column, key: str) -> Chain:
    transposes = list(itertools.takewhile(lambda codec: isinstance(codec, _Transpose), codecs))
    axes = tuple(range(1 + len(column.row_shape)))
    if any(tuple(sorted(each.configuration.order)) != axes for each in transposes):
        raise CorruptObject(f"{key} transposes other axes than {list(axes)}")
    first, *packing = codecs[len(transposes) :] or (None,)
    if not isinstance(first, _Bytes) or (first.configuration is None and column.dtype.itemsize > 1):
        raise _unread(key, "no codec `bytes` that says in which order bytes stand")
    names = tuple(each.name for each in packing)
    packers = [name for name in names if name in ("gzip", "zstd", "blosc")]
    if len(packers) + names.count("crc32c") != len(names) or len(packers) > 1 or names.count("crc32c") > 1:
        raise _unread(key, f"the codecs {', '.join(names)} behind `bytes`; at most one packs, one checks")
    return Chain(big_endian=_is_big(first), packing=names)


def _index(settings: _ShardingSettings, key: str) -> ShardIndex:
    names = [each.name for each in settings.index_codecs]
    first = settings.index_codecs[0] if settings.index_codecs else None
    if names not in (["bytes"], ["bytes", "crc32c"]) or not isinstance(first, _Bytes):
        raise _unread(key, "an index that is not `bytes`, with or without `crc32c`")
    if first.configuration is None:
        raise _unread(key, "an index that does not say in which order its bytes stand")
    return ShardIndex(
        at_end=settings.index_location == "end", big_endian=_is_big(first), checked=len(names) == 2
    )


def _is_big(codec: _Bytes) -> bool:
    return codec.configuration is not None and codec.configuration.endian == "big"


def _check_shapes(
    object_shape: Shape, chunk_shape: Shape, column: Column, rows: int, unit_rows: int, key: str
) -> None:
    shape = (rows, *column.row_shape)
    if not len(object_shape) == len(chunk_shape) == len(shape):
        raise CorruptObject(f"{key} cuts {len(shape)} dimensions into {object_shape} and {chunk_shape}")
    # One unit alone may be cut as it likes; of several, each object is of one.
    if object_shape[0] > unit_rows or (rows > unit_rows and unit_rows % object_shape[0]):
        raise StoreError(
            f"{key} cuts its rows into objects of {object_shape[0]}, so that some hold rows of two units of "
            f"{unit_rows}; what is committed as a unit must lie in objects of its own. Write it with shards "
            f"or chunks of {unit_rows} rows"
        )
    too_long = any(
        cut > max(length, 1) for cut, length in zip(object_shape[1:], column.row_shape, strict=True)
    )
    if too_long or any(whole % part for whole, part in zip(object_shape, chunk_shape, strict=True)):
        raise _unread(key, f"objects of {list(object_shape)} in chunks of {list(chunk_shape)}")
    unit = -(-min(unit_rows, rows) // object_shape[0]) * math.prod(
        _counts(column.row_shape, object_shape[1:])
    )
    if (chunks := unit * (math.prod(object_shape) // math.prod(chunk_shape))) > _MOST_CHUNKS:
        raise _unread(key, f"{chunks} chunks a unit; at most {_MOST_CHUNKS}")


@functools.cache
def _counts(lengths: tuple[int, ...], cuts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-length // cut) for length, cut in zip(lengths, cuts, strict=True))


def _unread(key: str, what: str) -> StoreError:
    return StoreError(f"{key} describes a layout that softcask does not read: {what}")
