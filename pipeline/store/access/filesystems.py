"""Open the filesystem behind a URI, told what its protocol needs to be told.

An object may come to be only whole and only under a free name. S3 does that by `If-None-Match: *`, GCS by
`ifGenerationMatch=0`; what fsspec does by default for mode="create" is to look and then write, and two
writers would both be told that they were first. So only the protocols listed here are written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec

from softcask.pipeline.config.credentials import holds_credentials
from softcask.storage_schemas.errors import StoreAccess

WRITABLE = {"file", "local", "memory", "s3", "s3a", "gs", "gcs"}
"""Protocols whose filesystem makes an object only if its name is free, and makes it whole."""

_S3 = {"s3", "s3a"}
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
    "retries": {"total_max_attempts": 1, "mode": "standard"},  # `Retries` counts them
}
_LARGEST_PUT = 5 << 30


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The filesystem behind `uri`, and the path of `uri` on it; nothing is asked of a server yet.

    Raises:
        StoreAccess: The URI holds a password, or no filesystem for its protocol is installed.
    """
    if holds_credentials(uri):  # and so it is not shown here
        raise StoreAccess(
            f"the {uri.split('://')[0]}:// address of the store has a password in it, or another "
            "credential, and addresses are shown, logged and kept. Name the bucket or host alone, and give "
            "credentials by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or by a profile "
            "(AWS_PROFILE)."
        )
    options = _s3_options() if uri.split("://")[0] in _S3 else {}
    try:
        fs, root = fsspec.core.url_to_fs(uri, **options)
    except (ImportError, ValueError) as error:
        raise StoreAccess(f"cannot open {uri}: {error}") from error
    if protocols_of(fs) & _S3:
        fs.retries = 1
    return fs, root.rstrip("/")


def protocols_of(fs: Any) -> set[str]:
    """The names of a filesystem's protocol."""
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def read_whole(fs: Any, path: str) -> bytes:
    """The whole object, in one request: s3fs asks for the size first unless it is told where to start."""
    data: bytes = fs.cat_file(path, start=0) if protocols_of(fs) & _S3 else fs.cat_file(path)
    return data


def create(fs: Any, path: str, data: bytes) -> None:
    """Make the object if its name is free; the driver raises if it is not.

    On S3 in one PUT, which is conditional as a whole, costs one request, and leaves no parts behind.
    """
    fs.pipe_file(path, data, mode="create", **_one_request(fs))


def overwrite(fs: Any, path: str, data: bytes) -> None:
    """Put the object there, whatever stood before."""
    fs.pipe_file(path, data, **_one_request(fs))


def _one_request(fs: Any) -> Mapping[str, int]:
    return {"chunksize": _LARGEST_PUT} if protocols_of(fs) & _S3 else {}


def _s3_options() -> dict[str, Any]:
    """Options of s3fs; those that fsspec's own configuration gives (`FSSPEC_S3`) come first."""
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {**_S3_CONFIG, **given}, "use_listings_cache": False}
