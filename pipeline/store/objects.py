"""A store's objects on any fsspec filesystem: read whole, published once.

`publish` is the one way an object comes to be: complete under its final name, or not there at all. On local
disks that is a temporary file, fsync and `link` (fsspec's own local "create" leaves half a file behind when
killed); elsewhere it is the filesystem's conditional create, and only where there is one: what fsspec does by
default for mode="create" is to look and then write, and two writers would both be told that they were first.
S3 and GCS have one (`If-None-Match`, `ifGenerationMatch=0`), but are not tested here until they have tests of
their own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreAccess, StoreNotFound
from softcask.storage_schemas.manifest import ObjectRecord

_TEMPORARY = ".tmp-"
_WRITABLE = {"file", "local", "memory", "s3", "s3a", "gs", "gcs"}
"""Protocols whose filesystem makes an object only if its name is free, and makes it whole."""
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV)


@dataclass(frozen=True, slots=True)
class StoreObjects:
    """The objects below one URI; picklable, safe to share between threads.

    Attributes:
        uri: A local path or an fsspec URL.
        fs: The filesystem behind it.
        root: The store's place on that filesystem.
    """

    uri: str
    fs: Any = field(repr=False, compare=False)
    root: str = field(repr=False, compare=False)

    @classmethod
    def at(cls, uri: str) -> StoreObjects:
        """The objects below `uri`; nothing is read or made yet.

        Raises:
            StoreAccess: No filesystem for this protocol is installed.
        """
        try:
            fs, root = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise StoreAccess(f"cannot open {uri}: {error}") from error
        return cls(uri, fs, root.rstrip("/"))

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disk, if that is where the store lies."""
        return Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def path(self, key: str) -> str:
        """`key` as the filesystem names it; refuses one that leaves the store."""
        return f"{self.root}/{keys.checked_key(key)}"

    def read(self, key: str) -> bytes:
        """The whole object.

        Raises:
            StoreNotFound: There is no such object.
            StoreAccess: The filesystem refused.
        """
        with self._explained("read", key):
            data: bytes = self.fs.cat_file(self.path(key))
            return data

    def read_if_present(self, key: str) -> bytes | None:
        """The whole object, or None where there is none."""
        try:
            return self.read(key)
        except StoreNotFound:
            return None

    def read_recorded(self, record: ObjectRecord) -> bytes:
        """The whole object, if it is what was committed; of a longer one no more than a byte more is read.

        Raises:
            CorruptObject: It is gone, or has another length or checksum; names the object.
            StoreAccess: The filesystem refused.
        """
        try:
            data = self._read_start(record.key, record.size + 1)
        except StoreNotFound as error:
            raise CorruptObject(f"{record.key} was committed to {self.uri} and is gone") from error
        if len(data) > record.size:
            raise CorruptObject(
                f"{record.key} has more than the {record.size} bytes it was committed with; it is damaged"
            )
        return record.check(data)

    def _read_start(self, key: str, size: int) -> bytes:
        path = self.path(key)
        with self._explained("read", key):
            if self.local is not None:  # Python makes room for all that is asked for before it reads
                size = min(size, Path(path).stat().st_size)
            data: bytes = self.fs.cat_file(path, start=0, end=size)
            return data

    def names(self, folder: str) -> list[str]:
        """Names directly in `folder`, sorted, temporaries left out; empty where there is no such folder."""
        with self._explained("list", folder):
            try:
                found = self.fs.ls(self.path(folder) if folder else self.root, detail=False, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if not name.startswith(_TEMPORARY))

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

    def parts(self, folder: str) -> list[str]:
        """Names in `folder` that can be parts of a store; what else lies there is none of ours."""
        return [name for name in self.names(folder) if keys.is_name(name)]

    def publish(self, key: str, data: bytes) -> bool:
        """Make the object, whole, unless the name is taken.

        Returns:
            False where an object of this name stands already; it is left as it is.

        Raises:
            StoreAccess: No permission, no space, a fault of the filesystem, or one that cannot tell whether a
                name is taken; nothing was made.
        """
        self._check_writable()
        with self._explained("write", key):
            if self.local is not None:
                return _publish_locally(Path(self.path(key)), data)
            try:
                self.fs.pipe_file(self.path(key), data, mode="create")
            except Exception as error:
                if not _says_taken(error):
                    raise
                return False
            return True

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

    def replace(self, key: str, data: bytes) -> None:
        """Put the object there, whatever stood before; a reader sees the old bytes or the new ones.

        Raises:
            StoreAccess: As `publish` does.
        """
        self._check_writable()
        with self._explained("write", key):
            if self.local is not None:
                target = Path(self.path(key))
                with _temporary(target, data) as temporary:
                    temporary.replace(target)
                _sync_folder(target.parent)
            else:
                self.fs.pipe_file(self.path(key), data)

    def remove(self, key: str) -> None:
        """Take the object away, if it is there.

        Raises:
            StoreAccess: As `publish` does.
        """
        self._check_writable()
        with self._explained("remove", key), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path := self.path(key))
            if self.local is not None:
                _sync_folder(Path(path).parent)

    def free_bytes(self) -> int | None:
        """Free space where the store lies, in bytes; None where the filesystem cannot tell."""
        if self.local is None:
            return None
        standing = next(folder for folder in (self.local, *self.local.parents) if folder.exists())
        return shutil.disk_usage(standing).free

    def _check_writable(self) -> None:
        named = self.fs.protocol
        protocols = {named} if isinstance(named, str) else set(named)
        if not protocols & _WRITABLE:
            raise StoreAccess(
                f"cannot write to {self.uri}: {min(protocols, default='its filesystem')!r} does not make "
                "an object whose name is free in one step, so two writers could spoil the store. "
                f"Write to one of {', '.join(sorted(_WRITABLE))} and copy the store there; reading works."
            )

    @contextlib.contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        where = f"{key or 'the store'} in {self.uri}"
        try:
            yield
        except SoftcaskError:
            raise
        except FileNotFoundError as error:
            raise StoreNotFound(f"there is no {where}") from error
        except NotADirectoryError as error:
            if verb == "read":  # a file where a folder would be: what is looked for is not there
                raise StoreNotFound(f"there is no {where}") from error
            raise StoreAccess(f"could not {verb} {where}: {error}") from error
        except PermissionError as error:
            raise StoreAccess(
                f"no permission to {verb} {where}: {error}. Check the credentials or the folder's owner."
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreAccess(
                    f"no space left to {verb} {where}. What was committed is safe; "
                    "free some space and run the same command again."
                ) from error
            raise StoreAccess(f"could not {verb} {where}: {error}") from error
        except Exception as error:
            if self.local is not None:
                raise
            # Drivers raise what they like: botocore's NoCredentialsError is no OSError.
            raise StoreAccess(f"could not {verb} {where}: {type(error).__name__}: {error}") from error


def _says_taken(error: BaseException | None) -> bool:
    """Whether a conditional create failed because the name is taken, or being taken.

    S3 says that by status 412 (PreconditionFailed) and 409 (ConditionalRequestConflict), in the `response` of
    botocore's ClientError, which s3fs hands on as the cause of an OSError.
    """
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        taken = ("PreconditionFailed", "412", "ConditionalRequestConflict")
        if isinstance(error, FileExistsError) or code in taken:
            return True
        error = error.__cause__
    return False


def _publish_locally(target: Path, data: bytes) -> bool:
    published = False
    if not target.exists():
        _make_folder(target.parent)
        try:
            published = _link_unnamed(target, data)
        except OSError as error:
            if error.errno not in (*_NO_UNNAMED_FILES, errno.EPERM):
                raise
            published = _link_temporary(target, data)
    # Of a name found taken too: its writer may not have come to this, and a receipt must not outlast it.
    _sync_folder(target.parent)
    return published


def _link_unnamed(target: Path, data: bytes) -> bool:
    """By a file without a name, of which a killed writer leaves nothing (Linux; most of its filesystems)."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.EOPNOTSUPP, "no unnamed files on this system")
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
        try:
            _write_all(descriptor, data)
            # With a folder given, os.link follows the link under /proc to the file itself, as linkat
            # wants.
            os.link(f"/proc/self/fd/{descriptor}", target, src_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        finally:
            os.close(descriptor)
    finally:
        os.close(folder)
    return True


def _link_temporary(target: Path, data: bytes) -> bool:
    with _temporary(target, data) as temporary:
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise StoreAccess(
                    f"cannot write to {target.parent}: its filesystem has no hard links ({error}), by which "
                    "objects get their names whole. Keep the store on one that has them."
                ) from error
            raise
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


@contextlib.contextmanager
def _temporary(target: Path, data: bytes) -> Iterator[Path]:
    """A file beside `target` that holds `data` durably, gone at the end."""
    _make_folder(target.parent)
    temporary = target.parent / f"{_TEMPORARY}{target.name}-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """The folder and those above it, each one's name as durable as what will lie in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
