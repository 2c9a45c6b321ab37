"""Objects on a local disk: complete under their final name, or not there at all, whenever the power fails.

A temporary file, fsync and `link`: fsspec's own local "create" leaves half a file behind when killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from softcask.storage_schemas.errors import StoreAccess, StoreError

TEMPORARY = ".tmp-"
"""How the name of a file begins that is no object yet."""

_NO_UNNAMED_FILES = tuple(
    getattr(errno, name) for name in ("EOPNOTSUPP", "EISDIR", "EINVAL", "ENOENT", "EXDEV", "EPERM")
)


def refuse_leaving(root: str, key: str) -> None:
    """Refuse a key that a symbolic link leads out of the store's folder; links within it are as files.

    Raises:
        StoreError: It leads out.
    """
    place = root
    for part in key.split("/"):
        place = f"{place}/{part}"
        if os.path.islink(place):  # noqa: PTH114 -- where pathlib raises, what opens the file is to do that
            break
    else:
        return
    leads_to = os.path.realpath(f"{root}/{key}")
    if not leads_to.startswith(f"{os.path.realpath(root)}/"):
        raise StoreError(
            f"{key} of {root} is a symbolic link, or lies behind one, out of the store to {leads_to}; it is "
            "not followed. Copy the store with what its links lead to (`cp -rL`), or open it there"
        )


def read_file(path: Path, start: int, stop: int | None) -> bytes:
    """Bytes `start` to `stop` of a regular file, fewer where it ends before.

    Raises:
        OSError: There is none, or the filesystem refused.
        StoreAccess: It is something else than a file.
    """
    # Without waiting: a pipe in the place of a file would never open.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise StoreAccess(f"could not read {path}: it is no regular file")
        # Python makes room for all that is asked for before it reads.
        end = status.st_size if stop is None else min(stop, status.st_size)
        file.seek(start)
        return file.read(max(0, end - start))


def publish_file(target: Path, data: bytes) -> bool:
    """Make the file, whole and durable, unless its name is taken.

    Returns:
        False where the name is taken.

    Raises:
        OSError: The filesystem refused; nothing was made.
        StoreAccess: It has no hard links.
    """
    published = False
    if not target.exists():
        _make_folder(target.parent)
        try:
            published = _link_unnamed(target, data)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            published = _link_temporary(target, data)
    # Of a name found taken too: its writer may not have come to this, and a receipt must not outlast it.
    sync_folder(target.parent)
    return published


def replace_file(target: Path, data: bytes) -> None:
    """Put the file there, whatever stood before.

    Raises:
        OSError: The filesystem refused; what stood before stands.
    """
    with _temporary(target, data) as temporary:
        temporary.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    temporary = target.parent / f"{TEMPORARY}{target.name}-{secrets.token_hex(8)}"
    try:
        try:
            _link_unnamed(temporary, data)  # named for a moment only: killed before, it leaves nothing
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            _write_named(temporary, data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_named(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """The folder and those above it, each one's name as durable as what will lie in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
