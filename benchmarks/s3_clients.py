"""s3fs, as softcask drives it, beside obstore: CPU and wall time of requests to an S3 server of this machine.

The server (moto) runs in a process of its own, so the CPU time is the client's alone, all its threads
counted; the wall time is mostly the server's. Rounds of both alternate; medians are shown.

    python benchmarks/s3_clients.py       # needs moto[server], s3fs and obstore
"""

from __future__ import annotations

import os
import re
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

from softcask.pipeline.store.access.objects import StoreObjects

SIZES = {"1 KiB": (1 << 10, 60), "64 MiB": (64 << 20, 9)}
"""Bytes of an object, and rounds."""


@contextmanager
def server() -> Iterator[str]:
    """Address of an S3 server with a bucket named `bucket`."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = next(found[1] for line in process.stderr if (found := re.search(r"on (http://[\d.:]+)", line)))
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        urlopen(Request(f"{address}/bucket", method="PUT")).close()  # noqa: S310
        yield address
    finally:
        process.terminate()
        process.wait()


def clients(address: str) -> dict[str, tuple[Callable[[str, bytes], Any], Callable[[str], Any]]]:
    """Create and read of each client that is installed."""
    ours = StoreObjects.at("s3://bucket/s3fs")
    found: dict[str, Any] = {"s3fs": (ours.publish, ours.read)}
    try:
        import obstore
        from obstore.store import S3Store
    except ImportError:
        return found
    store = S3Store("bucket", prefix="obstore", endpoint=address, client_options={"allow_http": True})
    found["obstore"] = (
        lambda key, data: obstore.put(store, key, data, mode="create", use_multipart=False),
        lambda key: bytes(obstore.get(store, key).bytes()),
    )
    found["obstore, not copied"] = (found["obstore"][0], lambda key: obstore.get(store, key).bytes())
    return found


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall milliseconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def main() -> None:
    """Measure and print the table."""
    table = Table("object", "client", "PUT CPU ms", "PUT wall ms", "GET CPU ms", "GET wall ms")
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    with server() as address:
        os.environ["AWS_ENDPOINT_URL"] = address
        found = clients(address)
        for name, (put, get) in found.items():  # connections, imports
            put(f"first {name}", b"x")
            get(f"first {name}")
        for size, (length, rounds) in SIZES.items():
            data = secrets.token_bytes(length)
            times: dict[str, list[tuple[float, ...]]] = {name: [] for name in found}
            for number in range(rounds):
                for name, (put, get) in found.items():
                    key = f"{size} {name} {number}"
                    written = timed(lambda put=put, key=key, data=data: put(key, data))  # type: ignore[misc]
                    times[name].append((*written, *timed(lambda get=get, key=key: get(key))))  # type: ignore[misc]
            for name, rows in times.items():
                medians = (statistics.median(column) for column in zip(*rows, strict=True))
                table.add_row(size, name, *(f"{median:,.1f}" for median in medians))
        if "obstore" not in found:
            table.add_row("", "obstore is not installed")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
