"""How commands speak: answers on stdout, everything about the way there on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_OF_FILES = 120


def stdout() -> Console:
    """Where answers go."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False)


def stderr() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH_OF_FILES, highlight=False)


def say(text: str) -> None:
    """One line of an answer, never broken to fit a width: paths must stay whole."""
    stdout().print(Text(text), soft_wrap=True)


def note(text: str) -> None:
    """One line about the way there."""
    stderr().print(Text(text, style="dim"), soft_wrap=True)


def warn(text: str) -> None:
    """Something the user should look at; the command goes on."""
    stderr().print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


def complain(text: str) -> None:
    """Why the command ends here."""
    stderr().print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """A table as an answer."""
    stdout().print(table(columns, rows, title=title))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> Table:
    """A table; columns of numbers stand to the right, rows of several lines apart from each other."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    several_lines = any("\n" in cell for row in rows for cell in row)
    for number, column in enumerate(columns):
        right = not several_lines and all(row[number][:1].isdigit() for row in rows)
        made.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row), end_section=several_lines)
    return made


def emit(answer: dict[str, Any]) -> None:
    """The whole answer as JSON, for machines."""
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """While this holds, a user's own code that prints does not spoil the JSON on stdout."""
    if as_json:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def size(count: float | None) -> str:
    """Bytes as a person reads them."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def share(part: int, whole: int) -> str:
    """A share as percent; a dash where there is nothing to share."""
    return f"{part / whole:.2%}" if whole else "-"


def many(count: int, what: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
