"""A store's objects on any fsspec filesystem: read whole, published once.

`publish` is the one way an object comes to be: complete under its final name, or not there at all. On local
disks `local_objects` does that; elsewhere it is the filesystem's conditional create, and only where there is
one (`filesystems`). Requests to a server are tried again while that may help (`retries`), and every failure
ends as one typed error that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from softcask.pipeline.store.access import filesystems
from softcask.pipeline.store.access.answers import may_pass, says_no_bucket, says_past_the_end, says_taken
from softcask.pipeline.store.access.explained import explained
from softcask.pipeline.store.access.local_objects import (
    TEMPORARY,
    publish_file,
    read_file,
    refuse_leaving,
    replace_file,
    sync_folder,
)
from softcask.pipeline.store.access.retries import Retries
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, StoreAccess, StoreNotFound
from softcask.storage_schemas.manifest import MOST_BYTES, ObjectRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreObjects:
    """The objects below one URI; picklable, safe to share between threads and to take into a forked process.

    Attributes:
        uri: A local path or an fsspec URL.
        fs: The filesystem behind it.
        root: The store's place on that filesystem.
        retries: How requests to a server are tried again.
    """

    uri: str
    fs: Any = field(repr=False, compare=False)
    root: str = field(repr=False, compare=False)
    retries: Retries = field(default=Retries(), repr=False, compare=False, kw_only=True)

    @classmethod
    def at(cls, uri: str) -> StoreObjects:
        """The objects below `uri`; nothing is read or made yet.

        Raises:
            StoreAccess: The URI holds a password, or no filesystem for its protocol is installed.
        """
        return StoreObjects(uri, *filesystems.open_filesystem(uri))

    def __reduce__(self) -> tuple[Callable[[str], StoreObjects], tuple[str]]:
        """Opened anew where it is unpickled: credentials do not travel."""
        return StoreObjects.at, (self.uri,)

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disk, if that is where the store lies."""
        return Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def path(self, key: str) -> str:
        """`key` as the filesystem names it; refuses one that leaves the store."""
        path = f"{self.root}/{keys.checked_key(key)}"
        if self.local is not None:
            refuse_leaving(self.root, key)
        return path

    def read(self, key: str) -> bytes:
        """The whole object; of a document that is too long to be one, no more than tells that.

        Raises:
            StoreNotFound: There is no such object.
            StoreAccess: The filesystem refused, or failed for longer than it is waited for.
        """
        if keys.is_document(key):
            return self.read_range(key, 0, MOST_BYTES + 1)
        path = self.path(key)
        with self._explained("read", key):
            if self.local is not None:
                return read_file(Path(path), 0, None)
            return self._tried(lambda fs: _empty_if_past_the_end(lambda: filesystems.read_whole(fs, path)))

    def read_if_present(self, key: str) -> bytes | None:
        """The whole object, or None where there is none."""
        try:
            return self.read(key)
        except StoreNotFound:
            return None

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of the object, fewer where it ends before.

        Raises:
            StoreNotFound: There is no such object.
            StoreAccess: As `read` does.
        """
        path = self.path(key)
        with self._explained("read", key):
            if self.local is not None:
                return read_file(Path(path), start, stop)
            if stop <= start:
                return b""
            return self._tried(
                lambda fs: _empty_if_past_the_end(lambda: fs.cat_file(path, start=start, end=stop))
            )

    def read_recorded(self, record: ObjectRecord) -> bytes:
        """The whole object, if it is what was committed; of a longer one no more than a byte more is read.

        What came from a server otherwise is asked for once more: it may have been damaged on its way.

        Raises:
            CorruptObject: It is gone, or has another length or checksum; names the object.
            StoreAccess: As `read` does.
        """
        try:
            return self._read_as_recorded(record)
        except CorruptObject:
            if not isinstance(self.fs, AsyncFileSystem):
                raise
        return self._read_as_recorded(record)

    def _read_as_recorded(self, record: ObjectRecord) -> bytes:
        try:
            data = self.read_range(record.key, 0, record.size + 1)
        except StoreNotFound as error:
            raise CorruptObject(f"{record.key} was committed to {self.uri} and is gone") from error
        if len(data) > record.size:
            raise CorruptObject(
                f"{record.key} has more than the {record.size} bytes it was committed with; it is damaged"
            )
        return record.check(data)

    def names(self, folder: str) -> list[str]:
        """Names directly in `folder`, sorted, temporaries left out; empty where there is no such folder."""
        place = self.path(folder) if folder else self.root
        with self._explained("list", folder):
            try:
                found = self._tried(lambda fs: fs.ls(place, detail=False, refresh=True))
            except (FileNotFoundError, NotADirectoryError) as error:
                if says_no_bucket(error):
                    raise
                return []
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if not name.startswith(TEMPORARY))

    def parts(self, folder: str) -> list[str]:
        """Names in `folder` that can be parts of a store; what else lies there is none of ours."""
        return [name for name in self.names(folder) if keys.is_name(name)]

    def all_keys(self) -> set[str]:
        """Keys of all objects below the root, temporaries among them: one listing."""
        with self._explained("list", ""):
            self.fs.invalidate_cache()
            found = self._tried(lambda fs: fs.find(self.root))
        return {str(path).removeprefix(f"{self.root}/") for path in found}

    def listing(self) -> dict[str, dict[str, Any]]:
        """What the filesystem tells of all objects below the root, by key, temporaries among them."""
        with self._explained("list", ""):
            self.fs.invalidate_cache()
            found = self._tried(lambda fs: fs.find(self.root, detail=True))
        return {str(path).removeprefix(f"{self.root}/"): info for path, info in found.items()}

    def refuse_below_a_file(self) -> None:
        """Refuse a place where no folder can be made.

        Raises:
            StoreAccess: It, or a folder above it, is a file.
        """
        above = (self.local, *self.local.parents) if self.local is not None else ()
        for place in above:
            if place.exists() and not place.is_dir():
                raise StoreAccess(
                    f"{self.uri} cannot be a store: Not a directory: {place}. Name another place."
                )

    def publish(self, key: str, data: bytes) -> bool:
        """Make the object, whole, unless the name is taken.

        Returns:
            False where an object of this name stands already; it is left as it is. True also where a request
            failed, and what stands there when it is made again are exactly these bytes. (A driver that makes
            it again unseen finds its own name taken: False may be said of one's own bytes, too.)

        Raises:
            StoreAccess: No permission, no space, a fault of the filesystem, or one that cannot tell whether a
                name is taken. The object is not there, or there whole.
        """
        self._check_writable()
        with self._explained("write", key):
            if self.local is not None:
                return publish_file(Path(self.path(key)), data)
            made, unsure = self._create(key, data)
        return made or (unsure and self.read_if_present(key) == data)

    def publish_equal(self, key: str, data: bytes) -> None:
        """Make the object, or find that it stands there with the very same bytes.

        Raises:
            CorruptObject: It stands there with other bytes.
        """
        if not self.publish(key, data) and self.read(key) != data:
            raise CorruptObject(
                f"{key} in {self.uri} differs from what softcask derives from the store's manifests; "
                "it is damaged or was edited. Remove that object and run again."
            )

    def refuse_overwriting(self, key: str, data: bytes) -> None:
        """Refuse a server that makes an object although its name is taken.

        Args:
            key: An object that stands.
            data: Its bytes: where the server is such a one, they are put there once more.

        Raises:
            StoreAccess: The server ignores the condition, so that two writers could spoil the store.
        """
        if self.local is not None:
            return
        with self._explained("write", key):
            made, _ = self._create(key, data)
        if made:
            raise StoreAccess(
                f"cannot write to {self.uri}: the server made {key} although it was there, so two writers "
                "could spoil the store (it ignores `If-None-Match: *`). Use a server, or a release of it, "
                "that knows conditional writes."
            )

    def replace(self, key: str, data: bytes) -> None:
        """Put the object there, whatever stood before; a reader sees the old bytes or the new ones.

        Raises:
            StoreAccess: As `publish` does.
        """
        self._check_writable()
        path = self.path(key)
        with self._explained("write", key):
            if self.local is not None:
                replace_file(Path(path), data)
            else:
                self._tried(lambda fs: filesystems.overwrite(fs, path, data))

    def remove(self, key: str) -> None:
        """Take the object away, if it is there.

        Raises:
            StoreAccess: As `publish` does.
        """
        self._check_writable()
        path = self.path(key)
        with self._explained("remove", key), contextlib.suppress(FileNotFoundError):
            self._tried(lambda fs: fs.rm_file(path))
            if self.local is not None:
                sync_folder(Path(path).parent)

    def free_bytes(self) -> int | None:
        """Free space where the store lies, in bytes; None where the filesystem cannot tell."""
        if self.local is None:
            return None
        standing = next(folder for folder in (self.local, *self.local.parents) if folder.exists())
        return shutil.disk_usage(standing).free

    def _create(self, key: str, data: bytes) -> tuple[bool, bool]:
        """Whether the object was made, and whether an attempt that failed may have made it."""
        path, unsure = self.path(key), False

        def attempt(fs: Any) -> bool:
            nonlocal unsure
            try:
                filesystems.create(fs, path, data)
            except Exception as error:
                if says_taken(error):
                    return False
                unsure = unsure or may_pass(error)
                raise
            return True

        return self._tried(attempt), unsure

    def _tried(self, request: Callable[[Any], T]) -> T:
        fs = self.fs
        if getattr(fs, "_pid", os.getpid()) != os.getpid():  # drivers with a loop of their own do not fork
            fs, _ = filesystems.open_filesystem(self.uri)
        if self.local is not None:
            return request(fs)
        return self.retries.run(lambda: request(fs))

    def _check_writable(self) -> None:
        protocols = filesystems.protocols_of(self.fs)
        if not protocols & filesystems.WRITABLE:
            raise StoreAccess(
                f"cannot write to {self.uri}: {min(protocols, default='its filesystem')!r} does not make "
                "an object whose name is free in one step, so two writers could spoil the store. "
                f"Write to one of {', '.join(sorted(filesystems.WRITABLE))} and copy the store there; "
                "reading works."
            )

    def _explained(self, verb: str, key: str) -> contextlib.AbstractContextManager[None]:
        return explained(verb, f"{key or 'the store'} in {self.uri}", local=self.local is not None)


def _empty_if_past_the_end(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except Exception as error:
        if not says_past_the_end(error):
            raise
        return b""
