"""Records as lines and as JSON: what they are about, and that no secret is in them."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from softcask.pipeline import logs
from softcask.pipeline.config.credentials import redacted
from softcask.storage_schemas.errors import ConfigError

LOG = logging.getLogger("softcask.tests")


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    logger = logging.getLogger("softcask")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = handlers, level
    logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_a_line_a_record_with_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    logs.set_up(stream := io.StringIO())
    with logs.about(run="r1"):
        with logs.about(unit="s0000-v0000-00000003", teacher="a"):
            LOG.warning("drift of\n%s", "two lines")
        LOG.error("no unit any more")
    LOG.warning("no run")
    first, second, third = lines(stream)
    assert first["message"] == "drift of\ntwo lines"
    assert (first["run"], first["unit"], first["teacher"]) == ("r1", "s0000-v0000-00000003", "a")
    assert (first["level"], first["logger"]) == ("warning", "softcask.tests")
    assert first["time"].endswith("+00:00")
    assert second["run"] == "r1" and "unit" not in second
    assert "run" not in third


def test_what_one_thread_is_about_is_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    logs.set_up(stream := io.StringIO())
    with logs.about(unit="mine"):
        thread = threading.Thread(target=LOG.warning, args=("from elsewhere",))
        thread.start()
        thread.join()
    assert "unit" not in lines(stream)[0]


def test_a_person_gets_plain_lines_from_the_level_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.FORMAT, raising=False)
    monkeypatch.setenv(logs.LEVEL, "info")
    logs.set_up(stream := io.StringIO())
    LOG.debug("not this")
    with logs.about(unit="u1"):
        LOG.info("read %d rows", 5)
    assert stream.getvalue() == "info: read 5 rows (unit u1)\n"


def test_setting_up_twice_logs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "json")
    stream = io.StringIO()
    logs.set_up(stream)
    logs.set_up(stream)
    LOG.warning("once")
    assert len(lines(stream)) == 1


@pytest.mark.parametrize(("variable", "value"), [(logs.FORMAT, "xml"), (logs.LEVEL, "loud")])
def test_an_unknown_format_or_level_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"{variable}={value}; expected one of"):
        logs.set_up()


SECRETS = [
    "s3://user:hunter2-hunter2@host/bucket",
    "password=hunter2-hunter2",
    '{"api_key": "hunter2-hunter2"}',
    "aws_secret_access_key = 'hunter2-hunter2'",
    "Authorization: Bearer hunter2-hunter2",
    "https://b.s3/x?X-Amz-Signature=hunter2-hunter2&X-Amz-Date=1",
    "the token is hf_hunter2hunter2hunter2hunter2hunter2",
    "of the environment: swordfish-42",
]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_is_logged_in_messages_arguments_or_tracebacks(
    monkeypatch: pytest.MonkeyPatch, form: str, text: str
) -> None:
    monkeypatch.setenv(logs.FORMAT, form)
    monkeypatch.setenv("SOME_SERVICE_PASSWORD", "swordfish-42")
    logs.set_up(stream := io.StringIO())
    LOG.warning("cannot open %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        LOG.exception("it failed")
    assert "hunter2" not in stream.getvalue()
    assert "swordfish" not in stream.getvalue()
    assert "cannot open" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "unit s0000-v0000-00000003 of teacher 'a': 1 NaN in row 'inputs-00000200', class 2: nan",
        "http://HOST:8265 did not answer; key runs/20260101T000000-000000/run.json",
        "lr: 0.1, T: 4, batch_size=64, num_tokens=5000",
        "PATH=/usr/bin",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert redacted(text, {"HOME": "/usr/bin", "X_PASSWORD": "nan"}) == text
