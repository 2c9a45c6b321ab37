"""One way to log: lines for people, or JSON for machines; what is known of the work, and never a secret.

What a record is about (run, unit, teacher) is set where it is known, by `about`, and stands in every record
that the same thread writes inside of it, whoever writes it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from softcask.pipeline.config.credentials import redacted
from softcask.storage_schemas.errors import ConfigError

FORMAT, LEVEL = "SOFTCASK_LOG", "SOFTCASK_LOG_LEVEL"
"""Environment variables: `json` or `text`; and `debug`, `info`, `warning` (the default) or `error`."""

_FORMATS = ("text", "json")
_LEVELS = {name.lower(): getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR")}
_ABOUT: ContextVar[dict[str, str]] = ContextVar("softcask_about")


@contextmanager
def about(**facts: str) -> Iterator[None]:
    """While this holds, this thread's records say what they are about: `run`, `unit`, `teacher`."""
    token = _ABOUT.set({**_ABOUT.get({}), **facts})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def set_up(stream: TextIO | None = None) -> None:
    """Send softcask's records to a stream, as the environment says; again and again changes nothing more.

    Args:
        stream: Where to; None: stderr, whatever that is when a record is written.

    Raises:
        ConfigError: The environment asks for a format or a level that there is not.
    """
    wanted = _chosen(FORMAT, "text", _FORMATS)
    level = _chosen(LEVEL, "warning", tuple(_LEVELS))
    logger = logging.getLogger("softcask")
    for old in [handler for handler in logger.handlers if isinstance(handler, _Handler)]:
        logger.removeHandler(old)
    handler = _Handler(stream)
    handler.setFormatter(JsonLines() if wanted == "json" else Plain())
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[level])


def is_json() -> bool:
    """Whether logs are for machines."""
    return os.environ.get(FORMAT, "").lower() == "json"


class _Handler(logging.StreamHandler[TextIO]):
    """To a stream, or to what stderr is at the moment: tests and bars put others in its place."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream or sys.stderr)
        self._given = stream

    def emit(self, record: logging.LogRecord) -> None:
        if self._given is None:
            self.stream = sys.stderr
        super().emit(record)


class JsonLines(logging.Formatter):
    """A JSON object a line: `time`, `level`, `logger`, `message`, what it is about, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without secrets."""
        body: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": redacted(record.getMessage()),
            **_ABOUT.get({}),
        }
        if record.exc_info:
            body["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(body, ensure_ascii=False)


class Plain(logging.Formatter):
    """A line for a person, with what it is about behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without secrets."""
        facts = ", ".join(f"{name} {value}" for name, value in _ABOUT.get({}).items())
        text = f"{record.levelname.lower()}: {record.getMessage()}{f' ({facts})' if facts else ''}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redacted(text)


def _chosen(variable: str, default: str, known: tuple[str, ...]) -> str:
    found = os.environ.get(variable, "").lower() or default
    if found not in known:
        raise ConfigError(f"the environment says {variable}={found}; expected one of {', '.join(known)}")
    return found
