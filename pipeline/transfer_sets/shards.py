"""Archives of which parts are read: in place, by ranges, or, gzipped, from a copy unpacked on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import fsspec

from softcask.pipeline.transfer_sets.files import is_gzipped, local_path, open_bytes, told
from softcask.pipeline.transfer_sets.kept import Kept
from softcask.pipeline.transfer_sets.listing import FileList
from softcask.storage_schemas.errors import TransferSetError

_UNPACKED_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Archives, gzipped or not. Of gzipped ones those read last stay unpacked: up to 8 GiB, at least one.

    Attributes:
        files: Where they lie.
        remote: Whether that is another machine.
    """

    files: FileList
    remote: bool
    _gzipped: Kept[int, bool] = field(default_factory=lambda: Kept(1 << 20))
    _unpacked: Kept[int, _Copy] = field(default_factory=lambda: Kept(_UNPACKED_BYTES))

    @classmethod
    def of(cls, files: FileList) -> Shards:
        """Archives as they were found."""
        return cls(files=files, remote=local_path(files.urls[0]) is None)

    @contextmanager
    def opened(self, file: int) -> Iterator[IO[bytes]]:
        """A whole archive, unpacked, to read and seek in; by one thread."""
        if self._is_gzipped(file):
            copy = self._copy(file)
            with os.fdopen(os.dup(copy.descriptor), "rb") as stream:
                stream.seek(0)
                yield stream
        else:
            with open_bytes(self.files.urls[file]) as stream:
                yield stream

    def read(self, file: int, start: int, stop: int) -> bytes:
        """Bytes of an archive, unpacked; by any number of threads.

        Raises:
            TransferSetError: It has changed or is gone.
        """
        url = self.files.urls[file]
        with told(url):
            data = self._read(file, url, start, stop)
        if len(data) > stop - start:
            raise TransferSetError(
                f"{url}: gave {len(data)} bytes where {stop - start} were asked for; its server does not "
                "know ranges: copy the shards to one that does, or to a disk"
            )
        if len(data) < stop - start:
            raise TransferSetError(f"{url}: ends before byte {stop}; it has changed since it was indexed")
        return data

    def _read(self, file: int, url: str, start: int, stop: int) -> bytes:
        if self._is_gzipped(file):
            copy = self._copy(file)  # held while it is read: another thread may push it out
            return os.pread(copy.descriptor, stop - start, start)
        if (path := local_path(url)) is not None:
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
                return os.pread(stream.fileno(), stop - start, start)
        filesystem, name = fsspec.url_to_fs(url)
        data: bytes = filesystem.cat_file(name, start=start, end=stop)
        return data

    def _is_gzipped(self, file: int) -> bool:
        return self._gzipped.get(file, lambda: is_gzipped(self.files.urls[file]), lambda _: 1)

    def _copy(self, file: int) -> _Copy:
        return self._unpacked.get(file, lambda: _Copy.of(self.files.urls[file]), lambda copy: copy.size)


class _Copy:
    """An unpacked archive on disk, without a name: gone when nobody holds it, however the process ends."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of(cls, url: str) -> _Copy:
        with tempfile.TemporaryFile(prefix="softcask-") as file:
            with open_bytes(url, gzipped=True) as stream:
                shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            return cls(os.dup(file.fileno()), file.tell())
