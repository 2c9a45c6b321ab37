"""Files that sources read, local or through fsspec, with every failure told as a `TransferSetError`."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from softcask.storage_schemas.errors import TransferSetError

_IN_MEMORY = (LocalFileSystem, MemoryFileSystem)
_GZIP_MAGIC = b"\x1f\x8b"
_CHANGE_MARKS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


def file_name(url: str) -> str:
    """The last part of a path or URL, without the query that may hold a signature."""
    for part in url.split(
        "::"
    ):  # of `simplecache::s3://bucket/name`, and of `zip://name::s3://bucket/archive`
        if "://" in part:
            return part.partition("?")[0].rpartition("/")[2]
    return Path(url).name


def local_path(url: str) -> str | None:
    """The path of a file on this machine, None of any other."""
    with told(url):
        filesystem, path = fsspec.url_to_fs(url)
    return str(path) if isinstance(filesystem, LocalFileSystem) else None


def file_facts(url: str) -> dict[str, Any]:
    """What tells one version of a file from another: its name, its size, when or to what it last changed.

    Raises:
        TransferSetError: No such file, or it may not be looked at.
    """
    facts = facts_unless_folder(url)
    with told(url):
        if facts is None:
            raise IsADirectoryError(url)
        return facts


def facts_unless_folder(url: str) -> dict[str, Any] | None:
    """`file_facts` of a file, None of a folder: one request.

    Raises:
        TransferSetError: Neither stands there, or it may not be looked at.
    """
    with told(url):
        filesystem, path = fsspec.url_to_fs(url)
        filesystem.invalidate_cache(path)  # what a listing told before is not what stands there now
        info = filesystem.info(path)
        if info["type"] == "directory":
            return None
        facts = {"name": file_name(url), "bytes": info.get("size")}
        if isinstance(filesystem, LocalFileSystem):
            return facts | {"modified_ns": Path(path).stat().st_mtime_ns}
        return facts | change_marks(info)


def is_gzipped(url: str) -> bool:
    """Whether a file starts as gzip does; its name does not count."""
    with open_bytes(url) as stream:
        return stream.read(2) == _GZIP_MAGIC


@contextmanager
def open_bytes(url: str, *, gzipped: bool = False, member: str | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading: as it is, gunzipped, or one member of a zip archive.

    Raises:
        TransferSetError: No such file or member, no permission, or damaged, also where a read finds it so.
    """
    with told(url), fsspec.open(url, "rb") as stream:
        if gzipped:
            with gzip.GzipFile(fileobj=stream) as unzipped:
                yield cast("IO[bytes]", unzipped)
        elif member is not None:
            with zipfile.ZipFile(stream) as archive, archive.open(member) as inner:
                yield inner
        else:
            yield stream


def change_marks(info: Mapping[str, Any]) -> dict[str, str]:
    """What a filesystem that is not this machine's tells of a file's version."""
    return {mark: str(info[mark]) for mark in _CHANGE_MARKS if info.get(mark)}


@contextmanager
def told(url: str) -> Iterator[None]:
    """Whatever goes wrong inside is told as a `TransferSetError` about this path or URL."""
    try:
        yield
    except FileNotFoundError as error:
        raise TransferSetError(f"{url}: no such file; check the path in [transfer_set]") from error
    except IsADirectoryError as error:
        raise TransferSetError(f"{url}: found a folder, expected a file; name the file in it") from error
    except PermissionError as error:
        raise TransferSetError(f"{url}: may not be read: {error}; check its permissions") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise TransferSetError(f"{url}: truncated or damaged: {error}; fetch or write it again") from error
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, TransferSetError):
            raise
        raise TransferSetError(f"{url}: cannot be read: {error}") from error


@contextmanager
def open_ranges(url: str) -> Iterator[IO[bytes]]:
    """Open a file of which parts are wanted: each read asks for just what it reads.

    Raises:
        TransferSetError: As `open_bytes`.
    """
    with told(url):
        filesystem, path = fsspec.url_to_fs(url)
        options = {} if isinstance(filesystem, _IN_MEMORY) else {"cache_type": "none"}
        with filesystem.open(path, "rb", **options) as stream:
            yield stream
