"""Objects of a remote store on this machine's disk: fetched once, shared by processes, bounded by size.

What lies there is trusted no more than what lies elsewhere: a reader verifies it as it would a store's own
file, and fetches an object again whose copy is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from softcask.pipeline.cache_folder import default_cache_folder
from softcask.pipeline.store.access.explained import explained
from softcask.storage_schemas.errors import StoreAccess
from softcask.storage_schemas.manifest import ObjectRecord

CACHE_DISK_BYTES = 32 << 30
"""Copies of remote objects that are kept on disk, by default."""

_COPY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".softcask-tmp-"
_ABANDONED_SECONDS = 3600.0
_OWNER_ONLY = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCache:
    """A folder of copies. Any number of processes may use it at once.

    Attributes:
        folder: Where they lie; of this user alone.
        most_bytes: Bytes that it may hold; what was used longest ago goes first.
    """

    folder: Path
    most_bytes: int

    @classmethod
    def at(cls, folder: str | os.PathLike[str] | None, most_bytes: int) -> LocalCache:
        """The cache in `folder`, made if there is none.

        Args:
            folder: Where; None takes `softcask` in the user's folder of caches.
            most_bytes: Bytes that it may hold.

        Raises:
            StoreAccess: It cannot be made, or others may write to it.
        """
        place = Path(folder) if folder is not None else default_cache_folder()
        with explained("write", str(place), local=True):
            place.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            status = place.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise StoreAccess(
                f"{place} keeps copies of remote objects, but others may write to it. Name a folder of your "
                "own as cache_dir, or take the permission from others (chmod go-w)."
            )
        return cls(folder=place, most_bytes=most_bytes)

    def path(self, uri: str, record: ObjectRecord) -> Path:
        """Where the copy of an object lies; another object's, and another version's, lies elsewhere."""
        name = f"{uri}\n{record.key}\n{record.size}\n{record.crc32c}"
        return self.folder / hashlib.sha256(name.encode()).hexdigest()

    def touch(self, path: Path, size: int) -> bool:
        """Whether a copy of this size is there; it counts as used just now."""
        try:
            os.utime(path)
            return path.stat().st_size == size
        except OSError:
            return False

    def put(self, path: Path, data: bytes) -> None:
        """Keep `data` under `path`, whole or not at all, and make room for it.

        Raises:
            StoreAccess: No space, or no permission.
        """
        self._make_room(len(data))
        temporary = self.folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        with explained("write", str(path), local=True):
            try:
                temporary.touch(mode=0o600, exist_ok=False)
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def remove(self, path: Path) -> bool:
        """Take a copy away; False where there was none. Who has mapped it keeps it."""
        try:
            path.unlink()
        except OSError:
            return False
        return True

    def _make_room(self, size: int) -> None:
        """Remove copies, those used longest ago first, until `size` more bytes fit."""
        held: list[tuple[float, int, Path]] = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(OSError):  # another process has removed it
                status = entry.stat(follow_symlinks=False)
                if _COPY.fullmatch(entry.name):
                    held.append((status.st_mtime, status.st_size, Path(entry.path)))
                elif entry.name.startswith(_TEMPORARY) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    self.remove(Path(entry.path))
        total = sum(bytes_ for _, bytes_, _ in held) + size
        for _, bytes_, path in sorted(held):
            if total <= self.most_bytes:
                return
            self.remove(path)
            total -= bytes_
