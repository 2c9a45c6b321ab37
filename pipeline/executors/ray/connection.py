"""The connection to a Ray cluster: one that runs, or one that is started here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from softcask.storage_schemas.errors import ExecutorError

_ANSWER_SECONDS = 10.0


def connect(address: str, *, object_store_mb: int) -> None:
    """Connect this process; whoever calls it calls `ray.shutdown` in the end.

    Args:
        address: `local` for a cluster of its own on this machine; else as `ray.init` takes it.
        object_store_mb: Object store of a local cluster, in MiB.

    Raises:
        ExecutorError: There is no such cluster, or none can be started.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # Without this, Ray may turn on token authentication and write a token file into the user's home.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"object_store_memory": object_store_mb << 20, "include_dashboard": False}
    try:
        _refuse_silence(address)
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ExecutorError(
            f"could not connect to Ray at {address!r}: {error}. Give 'local' as its address to start a "
            "cluster here, or the address of one that runs."
        ) from error


def _refuse_silence(address: str) -> None:
    """Ask a head that is named by host and port for its port: Ray itself would try for many minutes.

    Raises:
        ConnectionError: Nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"nobody answers there ({error})") from error


@contextmanager
def connected(address: str, *, object_store_mb: int) -> Iterator[None]:
    """Connected while this holds; who is connected already stays so.

    Args:
        address: See `connect`.
        object_store_mb: See `connect`.

    Raises:
        ExecutorError: See `connect`.
    """
    if ray.is_initialized():
        yield
        return
    connect(address, object_store_mb=object_store_mb)
    try:
        yield
    finally:
        ray.shutdown()
