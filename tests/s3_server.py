"""A real S3-protocol server (moto) in its own process, behind a proxy of ours that logs and puts faults in.

moto looks for an object and then makes it, so two of its threads could both make one; the proxy lets one PUT
through at a time, as S3 does for one name.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.access.retries import Retries

SECRET = "wJalrXUtnFEMI/K7MDENG+never/shown"
_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "date", "server"}


@dataclass(kw_only=True)
class Request:
    """One request as it came to the server."""

    method: str
    key: str
    query: str
    headers: dict[str, str]

    @property
    def lists(self) -> bool:
        return self.method == "GET" and ("list-type" in parse_qs(self.query) or not self.key)


@dataclass(kw_only=True)
class Fault:
    """What happens instead of the next `times` requests of `method` whose key ends with `key`."""

    act: Callable[[_Handler, bytes], int]
    method: str = ""
    key: str = ""
    times: int = 1

    def hits(self, method: str, key: str) -> bool:
        return self.times > 0 and self.method in ("", method) and key.endswith(self.key)


@dataclass
class S3:
    """The server, as a test sees it."""

    endpoint: str
    moto: str
    proxy: _Proxy
    bucket: str = ""
    waits: list[float] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/some/cask"

    @property
    def requests(self) -> list[Request]:
        return self.proxy.log

    def objects(self, **changes: Any) -> StoreObjects:
        """The store's objects, whose retries note how long they would have slept."""
        opened = StoreObjects.at(self.uri)
        patient = Retries(**{"sleep": self.waits.append, "jitter": lambda: 1.0, **changes})
        return StoreObjects(opened.uri, opened.fs, opened.root, retries=patient)

    def fault(self, act: Callable[[_Handler, bytes], int], **where: Any) -> Fault:
        self.proxy.faults.append(fault := Fault(act=act, **where))
        return fault

    def counted(self) -> dict[str, int]:
        """How many requests of each method there were since the log was emptied."""
        methods = [request.method for request in self.requests]
        return {method: methods.count(method) for method in sorted(set(methods))}

    def standing(self) -> dict[str, bytes]:
        """All objects of the bucket, past the proxy."""
        listing = self.direct("GET", f"/{self.bucket}?list-type=2")[1].decode()
        keys = re.findall("<Key>([^<]*)</Key>", listing)
        return {key: self.direct("GET", f"/{self.bucket}/{key}")[1] for key in keys}

    def direct(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request past the proxy."""
        with contextlib.closing(HTTPConnection(self.moto)) as connection:
            connection.request(method, path, body, {"Authorization": "AWS4-HMAC-SHA256 Credential=x/y/z"})
            answer = connection.getresponse()
            return answer.status, answer.read()


def answering(status: int, code: str) -> Callable[[_Handler, bytes], int]:
    """The server says `code` and does nothing."""
    return lambda handler, _: handler.refuse(status, code)


def landing(status: int, code: str) -> Callable[[_Handler, bytes], int]:
    """The server does what is asked, and says `code`."""

    def act(handler: _Handler, body: bytes) -> int:
        handler.forward(body)
        return handler.refuse(status, code)

    return act


def truncating(kept: int) -> Callable[[_Handler, bytes], int]:
    """The connection breaks off after `kept` bytes of the body."""

    def act(handler: _Handler, body: bytes) -> int:
        status, headers, data = handler.forward(body)
        handler.answer(status, headers, data, sent=data[:kept])
        handler.close_connection = True
        return status

    return act


def spoiling(change: Callable[[bytes], bytes]) -> Callable[[_Handler, bytes], int]:
    """The body comes otherwise than it stands, under a length that fits what comes, and no checksum."""

    def act(handler: _Handler, body: bytes) -> int:
        status, headers, data = handler.forward(body)
        plain = [(name, value) for name, value in headers if "checksum" not in name.lower()]
        handler.answer(status, plain, change(data))
        return status

    return act


def resetting(handler: _Handler, _: bytes) -> int:
    """The connection is reset before any answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    return 0


def landing_unanswered(handler: _Handler, body: bytes) -> int:
    """The server does what is asked, and the connection is reset instead of an answer."""
    handler.forward(body)
    return resetting(handler, body)


def stalling(handler: _Handler, _: bytes) -> int:
    """No answer comes for as long as the client waits."""
    handler.connection.settimeout(30)
    with contextlib.suppress(OSError):
        handler.connection.recv(1)  # returns when the client hangs up
    handler.close_connection = True
    return 0


def unconditional(handler: _Handler, body: bytes) -> int:
    """A server that knows no conditional writes."""
    del handler.headers["If-None-Match"]
    return handler.pass_on(body)


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, moto: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.moto = moto
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.lock = threading.Lock()

    def take(self, method: str, key: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.hits(method, key):
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up; that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: _Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """The log is the proxy's."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        request = Request(method=self.command, key=key, query=url.query, headers=dict(self.headers))
        self.server.log.append(request)
        fault = self.server.take(self.command, key)
        (fault.act if fault else _Handler.pass_on)(self, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def pass_on(self, body: bytes) -> int:
        status, headers, data = self.forward(body)
        self.answer(status, headers, data)
        return status

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        ordered = self.server.lock if self.command == "PUT" else contextlib.nullcontext()
        with ordered, contextlib.closing(HTTPConnection(self.server.moto)) as connection:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, sent: bytes | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        told = (
            length if self.command == "HEAD" and length is not None else str(len(data))
        )  # of what GET sends
        self.send_header("Content-Length", told)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if sent is None else sent)

    def refuse(self, status: int, code: str) -> int:
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made</Message></Error>'
        )
        self.answer(status, [("Content-Type", "application/xml")], text.encode())
        return status


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """moto's server and the proxy before it, for the whole session."""
    with serving() as server:
        yield server


@contextlib.contextmanager
def serving() -> Iterator[S3]:
    """The same for those that are no test."""
    for module in ("moto.server", "flask", "s3fs"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -e '.[dev]'")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if found := re.search(r"Running on http://([\d.:]+)", line):
            break
    else:
        pytest.fail("moto's server did not start: " + "".join(said))
    threading.Thread(target=server.stderr.read, daemon=True).start()
    proxy = _Proxy(found[1])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield S3(f"http://127.0.0.1:{proxy.server_port}", found[1], proxy)
    proxy.shutdown()
    server.terminate()
    server.wait()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """An empty bucket, no faults, an empty log, and the environment that leads there."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{os.urandom(6).hex()}"
    s3_server.proxy.faults.clear()
    here = S3(s3_server.endpoint, s3_server.moto, s3_server.proxy, bucket)
    here.direct("PUT", f"/{bucket}")
    here.requests.clear()
    yield here
    s3_server.proxy.faults.clear()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients opened from here on wait half a second for an answer."""
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.5, "connect_timeout": 5}}
    )


@pytest.fixture
def new_clients(s3: S3) -> Iterator[None]:
    """Clients opened in this test and the next read the environment anew."""
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    yield
    kind.clear_instance_cache()
