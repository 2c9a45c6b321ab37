"""A sealed store behind a plain web server: read, never written; what goes wrong keeps its cause."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.stores import MadeStore, sealed_store

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.access.retries import Retries
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, StoreAccess, StoreNotFound

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install -e '.[dev]'")


class Handler(SimpleHTTPRequestHandler):
    """Python's own web server, which answers a range with the whole; `refusals` go first."""

    refusals: list[int]

    def do_GET(self) -> None:
        if self.server.refusals:  # type: ignore[attr-defined]
            return self.send_error(self.server.refusals.pop(0))  # type: ignore[attr-defined]
        return super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sealed_store(str(tmp_path / "site" / "cask"))


@pytest.fixture
def server(made: MadeStore) -> Iterator[ThreadingHTTPServer]:
    site = str(Path(made.objects.root).parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site)) as server:
        server.refusals = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def uri(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/cask"


def test_a_sealed_store_is_read_over_http_as_from_a_disk(uri: str, made: MadeStore) -> None:
    rows = np.arange(19)
    found_NC = open_store(uri).logits("alpha", rows)
    np.testing.assert_array_equal(found_NC, open_store(made.objects.uri).logits("alpha", rows))


def test_what_is_not_there_or_damaged_is_named(uri: str, made: MadeStore) -> None:
    with pytest.raises(StoreNotFound, match=f"there is no nothing in {uri}"):
        StoreObjects.at(uri).read("nothing")
    with pytest.raises(StoreNotFound, match="there is no softcask store"):
        open_store(f"{uri}-other")
    shard = f"{keys.logits_group('alpha', 's0000', 0)}/logits/c/1/0"
    made.objects.replace(shard, made.objects.read(shard)[:-1])
    with pytest.raises(CorruptObject, match=shard):
        open_store(uri).logits("alpha", np.arange(19))


def test_trouble_is_tried_again_and_a_refusal_keeps_its_cause(uri: str, server: Any) -> None:
    opened, waits = StoreObjects.at(uri), list[float]()
    patient = Retries(sleep=waits.append, attempts=4)
    objects = StoreObjects(opened.uri, opened.fs, opened.root, retries=patient)
    server.refusals += [503, 500, 502]
    assert objects.read(keys.ROOT).startswith(b"{")
    assert len(waits) == 3
    server.refusals += [403]
    with pytest.raises(StoreAccess, match=f"could not read {keys.ROOT} in {uri}: 403") as raised:
        objects.read(keys.ROOT)
    assert getattr(raised.value.__cause__, "status", None) == 403
    server.refusals += [503] * 4
    with pytest.raises(StoreAccess, match="503.*given up after 4 attempts"):
        objects.read(keys.ROOT)


def test_nothing_is_written_over_http(uri: str) -> None:
    with pytest.raises(StoreAccess, match=f"cannot write to {uri}.*reading works"):
        StoreObjects.at(uri).publish("x", b"x")
