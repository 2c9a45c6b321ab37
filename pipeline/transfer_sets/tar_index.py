"""Where the members of tar archives lie: looked up once, so that a row is read without those before it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from softcask.pipeline.cache_folder import default_cache_folder
from softcask.pipeline.transfer_sets.files import local_path, told
from softcask.pipeline.transfer_sets.shards import Shards
from softcask.storage_schemas.errors import TransferSetError

_LOG = logging.getLogger(__name__)
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("file", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
    ]
)
_VERSION = 1
_NOTE = b"softcask"
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_BLOCK = 512
_MOST_LABEL_BYTES = 16 << 20
_REQUESTS = 16

ABSENT = -1
"""Size of an input that a sample does not have; label of a sample without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which members of a sample matter.

    Attributes:
        inputs: Endings of the input, of which a sample has one.
        label: Ending of the label.
        parse: From the label's bytes to a class index, -1 for none; raises ValueError.
        facts: What the label depends on.
    """

    inputs: tuple[str, ...]
    label: str | None
    parse: Callable[[bytes], int]
    facts: Mapping[str, Any]


def tar_index(shards: Shards, wanted: Wanted, state: Mapping[str, Any], place: str | None) -> pa.Table:
    """The samples of all shards, in order: `key`, `file`, `offset` and `size` of the input, `label`.

    Args:
        shards: The archives.
        wanted: Which members matter.
        state: What tells one state of the shards from another.
        place: Path or URL at which the index is kept; None for this user's cache.

    Raises:
        TransferSetError: A shard is damaged or truncated, a label is none, or the index cannot be kept where
            it was asked for.
    """
    note = json.dumps(
        {"version": _VERSION, "state": state, "inputs": wanted.inputs, "label": wanted.facts}, sort_keys=True
    )
    url = place or str(default_cache_folder() / f"tar-{sha256(note.encode()).hexdigest()[:32]}.parquet")
    if (kept := _kept(url, note)) is not None:
        return kept
    with ThreadPoolExecutor(_REQUESTS if shards.remote else 1) as threads:
        parts = list(threads.map(lambda file: scan(shards, file, wanted), range(len(shards.files.urls))))
    table = pa.concat_tables(parts).combine_chunks().replace_schema_metadata({_NOTE: note})
    try:
        with told(url):
            _keep(url, table)
    except TransferSetError as error:
        if place is not None:
            raise
        _LOG.warning("the index of the shards is not kept, and every process makes its own: %s", error)
    return table


def scan(shards: Shards, file: int, wanted: Wanted) -> pa.Table:
    """The samples of one shard.

    Raises:
        TransferSetError: It is no whole tar archive, or a label is none.
    """
    url = shards.files.urls[file]
    rows: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    with told(url), shards.opened(file) as stream:
        for key, members in _samples(stream, url):
            found = [members[ending] for ending in wanted.inputs if ending in members]
            if len(found) > 1:
                raise TransferSetError(
                    f"{url}: sample {key!r} has {len(found)} inputs ({', '.join(wanted.inputs)}), expected "
                    "one; name the ending of one as input"
                )
            offset, size = found[0] if found else (0, ABSENT)
            label = _label(stream, members, wanted, f"{url}: sample {key!r}")
            for name, value in zip(_SCHEMA.names, (key, file, offset, size, label), strict=True):
                rows[name].append(value)
        return pa.table(rows, schema=_SCHEMA)


def _samples(stream: IO[bytes], url: str) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Key of each sample, and ending -> offset and size of its members; members of one follow each other."""
    key: str | None = None
    members: dict[str, tuple[int, int]] = {}
    for member in _members(stream, url):
        parts = _NAME.fullmatch(member.name.removeprefix("./"))
        if parts is None:
            continue
        if parts[1] != key:
            if key is not None:
                yield key, members
            key, members = parts[1], {}
        if (ending := parts[2].lower()) in members:
            raise TransferSetError(f"{url}: sample {key!r} has two members {ending!r}, expected one")
        members[ending] = member.offset_data, member.size
    if key is not None:
        yield key, members


def _members(stream: IO[bytes], url: str) -> Iterator[tarfile.TarInfo]:
    damaged = "is it truncated, or no tar archive? fetch or write it again"
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    yield member
            end = archive.offset
    except tarfile.TarError as error:
        raise TransferSetError(f"{url}: {error}; {damaged}") from error
    # tarfile takes a damaged header, and the end of a file that is cut between members, for an archive's end.
    stream.seek(end)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise TransferSetError(f"{url}: no end of archive at byte {end}, where its members end; {damaged}")


def _label(stream: IO[bytes], members: Mapping[str, tuple[int, int]], wanted: Wanted, place: str) -> int:
    if wanted.label is None or wanted.label not in members:
        return ABSENT
    offset, size = members[wanted.label]
    if size > _MOST_LABEL_BYTES:
        raise TransferSetError(f"{place}: its {wanted.label} has {size} bytes, too many for a label")
    stream.seek(offset)
    try:
        return wanted.parse(stream.read(size))
    except ValueError as error:
        raise TransferSetError(f"{place}: its {wanted.label} is no label: {error}") from error


def _kept(url: str, note: str) -> pa.Table | None:
    """The index that is kept, if it is of these shards."""
    try:
        with fsspec.open(url, "rb") as stream:
            # Not read_table, whose threads outlive it (apache/arrow#34314).
            table = pq.ParquetFile(pa.BufferReader(stream.read())).read(use_threads=False)
    except (OSError, pa.ArrowException, ValueError, ImportError):
        return None
    same = (table.schema.metadata or {}).get(_NOTE) == note.encode()
    return table if same and table.schema.equals(_SCHEMA) else None


def _keep(url: str, table: pa.Table) -> None:
    """Write the index, whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    if (path := local_path(url)) is None:
        filesystem, name = fsspec.url_to_fs(url)
        filesystem.pipe_file(name, buffer.getvalue())
        return
    target = Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def endings_of(names: Sequence[str]) -> tuple[str, ...]:
    """Endings as members have them: lower case, without the dot in front."""
    return tuple(name.lower().removeprefix(".") for name in names)
