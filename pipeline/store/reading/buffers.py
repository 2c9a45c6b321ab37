"""An object's bytes, to be read at any place of them: mapped from a file, or in memory.

A file is mapped only if it is a regular one of the length that was committed. softcask never changes or
shortens an object that stands: it publishes once, and what it mends it replaces by another file, which leaves
a mapped one as it was. If something else cuts a mapped file short, the system ends the process with SIGBUS at
the next look behind the new end; no reader by memory map can prevent that.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.access.explained import explained
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading.arena import CannotMap
from softcask.pipeline.store.reading.local_cache import LocalCache
from softcask.storage_schemas.errors import CorruptObject, StoreNotFound
from softcask.storage_schemas.manifest import ObjectRecord

FileState = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file: equal ones are of the same bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectBuffer:
    """All bytes of an object, of the length that was committed.

    Attributes:
        raw: The bytes, not to be written to.
        file: State of the file that they are mapped from and not verified against the record; None where they
            are in memory and verified.
    """

    raw: NDArray[np.uint8]
    file: FileState | None


class ObjectBuffers:
    """Opens a store's objects. Safe to share between threads and with forks."""

    def __init__(self, objects: StoreObjects, cache: LocalCache | None) -> None:
        """Nothing is opened yet.

        Args:
            objects: The store.
            cache: Where objects that do not lie on a local disk are kept; None keeps them in memory.
        """
        self._objects = objects
        self._cache = None if objects.local is not None else cache

    @property
    def in_files(self) -> bool:
        """Whether objects lie in files of this machine, their own or copies."""
        return self._objects.local is not None or self._cache is not None

    def open(self, record: ObjectRecord) -> ObjectBuffer:
        """The object that was committed.

        Raises:
            CorruptObject: It is gone or has another length (or, where it is in memory, another checksum).
            StoreAccess: The filesystem refused.
        """
        if not self.in_files or self._too_large(record):
            return self._in_memory(record)
        with self.file(record) as (descriptor, state):
            try:
                memory = mmap.mmap(descriptor, record.size, access=mmap.ACCESS_READ) if record.size else b""
            except (OSError, ValueError):  # a filesystem without memory maps
                return self._in_memory(record)
        return ObjectBuffer(raw=np.frombuffer(memory, dtype=np.uint8), file=state)

    @contextlib.contextmanager
    def file(self, record: ObjectRecord) -> Iterator[tuple[int, FileState]]:
        """The object's file, open to read, and its state; only where `in_files`.

        Raises:
            CorruptObject: It is gone, no regular file, or has another length than was committed.
            StoreAccess: The filesystem refused.
            CannotMap: It is larger than all copies together may be.
        """
        if self._too_large(record):
            raise CannotMap(f"{record.key} has {record.size} bytes, more than cache_dir_bytes allows")
        descriptor = self._descriptor(record)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptObject(f"{record.key} in {self._objects.uri} is no regular file")
            if status.st_size != record.size:
                raise CorruptObject(
                    f"{record.key} has {status.st_size} bytes, committed with {record.size}; it is damaged"
                )
            yield descriptor, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        finally:
            os.close(descriptor)

    def discard(self, record: ObjectRecord) -> bool:
        """Forget the copy on this machine of an object that lies elsewhere; False where there is none."""
        if self._cache is None:
            return False
        return self._cache.remove(self._cache.path(self._objects.uri, record))

    def _too_large(self, record: ObjectRecord) -> bool:
        return self._cache is not None and record.size > self._cache.most_bytes

    def _descriptor(self, record: ObjectRecord) -> int:
        if self._cache is None:
            return self._opened(Path(self._objects.path(record.key)), record)
        path = self._cache.path(self._objects.uri, record)
        if self._cache.touch(path, record.size):
            # Another process may have taken the copy away since.
            with contextlib.suppress(CorruptObject):
                return self._opened(path, record)
        self._cache.put(path, self._objects.read_recorded(record))
        return self._opened(path, record)

    def _opened(self, path: Path, record: ObjectRecord) -> int:
        try:
            with explained("read", f"{record.key} in {self._objects.uri}", local=True):
                # Without waiting: a pipe in the place of a file would never open.
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except StoreNotFound as error:
            raise CorruptObject(f"{record.key} was committed to {self._objects.uri} and is gone") from error

    def _in_memory(self, record: ObjectRecord) -> ObjectBuffer:
        data = self._objects.read_recorded(record)
        return ObjectBuffer(raw=np.frombuffer(data, dtype=np.uint8), file=None)
