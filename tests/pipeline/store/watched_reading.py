"""Reading stores that are made to do harm, in a process of its own, of bounded memory and under watch.

So a crash, a hang, a giant allocation and a look outside the store are outcomes like any other.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tests.pipeline.store.forging import SECRET, Forgery, varied_store
from tests.stores import all_objects

from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas.errors import SoftcaskError

TEMPERATURES = (1.0, 2.5)
MOST_ROWS = 20
"""Asked for at a time: who asks for more than fit in memory gets what he asked for."""
SPARE_BYTES = 768 << 20
"""Memory that reading a small store may take beyond what a process that has read one has."""
SECONDS = 60.0
"""After so long without an answer, reading hangs."""


def read_all(uri: str) -> dict[str, Any]:
    """What there is to be read, by name, or the error that says why not; others than ours are raised."""
    found: dict[str, Any] = {}

    def step(name: str, act: Callable[[], Any]) -> Any:
        try:
            found[name] = act()
        except SoftcaskError as error:
            found[name] = f"{type(error).__name__}: {error}"
            return None
        return found[name]

    step("open partial", lambda: open_store(uri, allow_partial=True).rows)
    store = step("open", lambda: open_store(uri))
    if store is None or (rows := step("rows", lambda: store.rows)) is None:
        return found
    rows_B = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(np.int64))
    for name in sorted(store.teachers):
        for temperature in TEMPERATURES:
            step(f"{name} {temperature}", lambda n=name, t=temperature: store.logits_at(n, rows_B, t))
        step(f"{name} encoded", lambda n=name: store.encoded(n, rows_B[::-1]))
        step(f"{name} row", lambda n=name: store.logits_at(n, rows_B[-1:], 1.0))
        step(f"{name} raw", lambda n=name: store.logits(n, rows_B))
        step(f"{name} batch", lambda n=name: next(store.batches(n, batch_rows=MOST_ROWS, shuffle=(0, 0))))
        step(f"{name} stats", lambda n=name: store.stats(n))
        step(f"{name} missing", lambda n=name: store.missing_units(n))
    return found


def exercise(uri: str) -> list[str]:
    """Read a store in all ways; returns what was raised that is no error of ours."""
    wrong = []
    for act in (read_all, verify):
        try:
            act(uri)
        except SoftcaskError:
            pass
        except Exception:
            wrong.append(traceback.format_exc())
    return wrong


class _Watch:
    """Which files outside of a store are looked at."""

    def __init__(self, forbidden: list[str]) -> None:
        self.seen: list[str] = []
        self._forbidden = tuple(forbidden)
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir", "os.open") and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(self._forbidden):
                self.seen.append(f"{event} {path}")


def _serve(connection: Connection, good: str, forbidden: list[str]) -> None:
    assert not exercise(good)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    watch = _Watch(forbidden)
    connection.send("ready")
    while (uri := connection.recv()) is not None:
        watch.seen.clear()
        wrong = exercise(uri)
        gc.collect()
        connection.send(wrong + [f"looked outside of the store: {each}" for each in watch.seen])


class Reader:
    """A process that reads stores; started anew where one ended it."""

    def __init__(self, good: str, forbidden: list[str]) -> None:
        self._arguments = good, forbidden
        self._start()

    def outcome(self, uri: str) -> list[str]:
        """What reading it came to that is no error of ours; a crash and a hang among it."""
        self._connection.send(uri)
        try:
            if self._connection.poll(SECONDS):
                found: list[str] = self._connection.recv()
                return found
            problem = f"no answer within {SECONDS:g} s"
        except EOFError:
            self._process.join()
            problem = f"the process ended with {self._process.exitcode}"
        self._process.kill()
        self._start()
        return [problem]

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        assert self._connection.recv() == "ready"


class Workshop:
    """A good store taken apart, a place to put forged ones, and a reader of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.good = folder, folder / "good"
        (folder / "outside").mkdir()
        (folder / "outside" / "secret").write_bytes(SECRET)
        self.base = Forgery.of(all_objects(varied_store(str(self.good)).objects))
        self.reader = Reader(str(self.good), [str(folder / "outside"), "/etc/"])
        self._numbers = itertools.count()

    def outcome(self, forgery: Forgery) -> list[str]:
        """What reading it raises that is no error of softcask's."""
        place = self.folder / f"forged-{next(self._numbers)}"
        place.mkdir()
        try:
            forgery.write(place, self.good)
            return self.reader.outcome(str(place))
        finally:
            shutil.rmtree(place)
