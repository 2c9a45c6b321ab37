"""Where an export goes: one Parquet file or a folder of them, there as a whole or not at all.

On this machine's disks everything is written beside its place and renamed when it is complete. Elsewhere each
file is written here first and then uploaded, because few drivers can take back half an upload; a folder there
is whole once its `export.manifest` stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
from fsspec.implementations.local import LocalFileSystem

from softcask.pipeline.store.access.answers import redacted
from softcask.pipeline.store.access.explained import explained
from softcask.pipeline.store.access.filesystems import open_filesystem
from softcask.pipeline.store.access.retries import Retries
from softcask.storage_schemas.errors import ExchangeError
from softcask.storage_schemas.keys import ROOT

MANIFEST = "_export.manifest"
"""Passed over by all that read a folder: pyarrow and Spark go by its first letter, others by its ending."""

_PART = re.compile(r"part-\d{5,}\.parquet")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """One Parquet file as it was written.

    Attributes:
        name: Its name within the export.
        rows: Rows in it.
        bytes: Its size.
        crc32c: CRC-32C of its bytes, eight hexadecimal digits.
    """

    name: str
    rows: int
    bytes: int
    crc32c: str


@dataclass(slots=True)
class Destination:
    """An export under way; made by `writing`.

    Attributes:
        uri: Where it will stand.
        single: Whether it is one file rather than a folder.
        staging: Folder on this machine's disk where files are written.
        files: Those that are complete.
    """

    uri: str
    single: bool
    staging: Path
    files: list[WrittenFile] = field(default_factory=list)
    _fs: Any = None
    _path: str = ""
    _retries: Retries = field(default_factory=Retries)

    def next_file(self) -> Path:
        """Where to write the next file."""
        name = self._path.rsplit("/", 1)[-1] if self.single else f"part-{len(self.files):05d}.parquet"
        return self.staging / name

    def complete(self, file: Path, rows: int) -> None:
        """Take a written file; it is uploaded now if it goes elsewhere."""
        written = WrittenFile(name=file.name, rows=rows, bytes=file.stat().st_size, crc32c=_checksum(file))
        if not _is_local(self._fs):
            target = self._path if self.single else f"{self._path}/{file.name}"
            with _explained(self.uri, self._fs):
                self._retries.run(lambda: self._fs.put_file(str(file), target))
            file.unlink()
        self.files.append(written)


@contextlib.contextmanager
def writing(uri: str, *, facts: dict[str, Any], overwrite: bool = False) -> Iterator[Destination]:
    """A place to put files in; what was put there stands under `uri` when the block ends without an error.

    Args:
        uri: Local path or fsspec URL. One that ends in `.parquet` is one file, any other is a folder.
        facts: What a folder's manifest says besides its files.
        overwrite: Replace what stands there.

    Raises:
        ExchangeError: Something stands there already, or it lies in a store.
        StoreAccess: The place cannot be written to.
    """
    fs, path = open_filesystem(uri)
    retries = Retries()
    with _explained(uri, fs):
        retries.run(lambda: _refuse_store(uri, fs, path))
        taken = retries.run(
            lambda: fs.exists(path) and not (fs.isdir(path) and not fs.ls(path, detail=False))
        )
    if taken and not overwrite:
        raise ExchangeError(f"{uri} stands already; name another place, or replace it with --overwrite")
    single = path.endswith(".parquet")
    if taken and single == fs.isdir(path):
        raise ExchangeError(
            f"{uri} is a {'folder' if single else 'file'}, where a {'file' if single else 'folder'} is to be "
            "written: a name in .parquet makes one file, any other a folder; name another place"
        )
    if taken and not single:
        _refuse_foreign(uri, fs, path)
    if taken and not single and not _is_local(fs):
        with _explained(uri, fs), contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{path}/{MANIFEST}")  # what is half replaced is whole no more
    with _staging(fs, path) as staging:
        to = Destination(uri=uri, single=single, staging=staging, _fs=fs, _path=path, _retries=retries)
        try:
            yield to
        except BaseException:
            _take_back(to)
            raise
        with _explained(uri, fs):
            retries.run(lambda: _place(to, facts))


def _refuse_store(uri: str, fs: Any, path: str) -> None:
    """Nothing is put among the objects of a store, where `gc` would take it for an orphan."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        folder = "/".join(parts[:length])
        found = False
        with contextlib.suppress(PermissionError):  # who may write here need not be let see what is above
            found = bool(folder) and fs.exists(f"{folder}/{ROOT}")
        if found:
            raise ExchangeError(
                f"{uri} lies in the store at {folder}, in which only softcask's own objects are at home; "
                "name a place outside of it"
            )


def _refuse_foreign(uri: str, fs: Any, path: str) -> None:
    """A folder is replaced only if nothing but an export lies in it."""
    with _explained(uri, fs):
        names = [str(found).rstrip("/").rsplit("/", 1)[-1] for found in fs.ls(path, detail=False)]
    if others := sorted(name for name in names if name != MANIFEST and not _PART.fullmatch(name)):
        raise ExchangeError(
            f"{uri} holds {others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''}, which no "
            "export made, and would be lost; name another place"
        )


@contextlib.contextmanager
def _staging(fs: Any, path: str) -> Iterator[Path]:
    with _explained(path, fs):
        if _is_local(fs):
            staging = Path(path).with_name(f".tmp-{Path(path).name}-{secrets.token_hex(8)}")
            staging.mkdir(parents=True)
        else:
            staging = Path(tempfile.mkdtemp(prefix="softcask-export-"))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place(to: Destination, facts: dict[str, Any]) -> None:
    manifest = {"softcask": "export", **facts, "files": [_plain(file) for file in to.files]}
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    if not _is_local(to._fs):
        if not to.single:
            to._fs.pipe_file(f"{to._path}/{MANIFEST}", text.encode())
            _remove_others(to)
        return
    target = Path(to._path)
    if to.single:
        _sync(file := to.staging / target.name)
        file.replace(target)
        return
    (to.staging / MANIFEST).write_text(text, "utf-8")
    for file in to.staging.iterdir():
        _sync(file)
    if target.exists():
        old = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
        target.rename(old)
        to.staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        to.staging.rename(target)


def _remove_others(to: Destination) -> None:
    """Of an export that stood there before, and had more files."""
    names = {*(file.name for file in to.files), MANIFEST}
    for path in to._fs.ls(to._path, detail=False, refresh=True):
        name = str(path).rsplit("/", 1)[-1]
        if _PART.fullmatch(name) and name not in names:
            to._fs.rm_file(path)


def _take_back(to: Destination) -> None:
    """What was uploaded of an export that failed."""
    if not _is_local(to._fs):
        for file in to.files:
            with contextlib.suppress(Exception):
                to._fs.rm_file(to._path if to.single else f"{to._path}/{file.name}")


def _plain(file: WrittenFile) -> dict[str, Any]:
    return {"name": file.name, "rows": file.rows, "bytes": file.bytes, "crc32c": file.crc32c}


def _is_local(fs: Any) -> bool:
    return isinstance(fs, LocalFileSystem)


def _checksum(file: Path) -> str:
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = google_crc32c.extend(value, chunk)
    return f"{value:08x}"


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _explained(uri: str, fs: Any) -> Iterator[None]:
    with explained("write", redacted(uri), local=_is_local(fs)):
        yield
