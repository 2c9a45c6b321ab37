"""Finds the line on which each key of a TOML file stands; tomllib does not tell, and no kept-up library does.

It only ever reads text that tomllib has accepted: it must know where values end, not whether they are right.
"""

from __future__ import annotations

import re
import tomllib

from softcask.storage_schemas.errors import ConfigError

Place = tuple[str | int, ...]
"""Keys and indices from the top of a file: `("teachers", 1, "factory")`."""

_SKIPPED = re.compile(r"(?:\s|#[^\n]*)*")
_KEY = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'[^']*'|[\w-]+)\s*""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|"(?:\\.|[^"\\])*"|'''
    r"""'''.*?'{3,5}|'[^']*'|"""
    r"""\d{4}-\d\d-\d\d[ ]\d\d:[^\s,\]}#]*|[^\s,\]}#]+""",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Place, int]:
    """The line, from 1, of every table, key and array element of a valid TOML text."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


def parse_key(text: str) -> Place:
    """A place as a person writes it, `teachers[1].factory`; an index may also be a key of digits.

    Raises:
        ConfigError: Not keys joined by dots.
    """
    place: list[str | int] = []
    for part in re.sub(r"\[(\d+)\]", r".\1", text).split("."):
        if not re.fullmatch(r"[\w-]+", part):
            raise ConfigError(f"{text!r} is not a key path such as teachers[1].batch_size")
        place.append(int(part) if part.isdecimal() else part)
    return tuple(place)


def show_place(place: Place) -> str:
    """`("teachers", 1, "factory")` as `teachers[1].factory`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self.last: dict[Place, int] = {}  # array of tables -> index of its newest table

    def scan(self) -> None:
        table: Place = ()
        while self._peek():
            if self._take("[["):
                table = self._table(self._keys(), of_array=True)
                self._take("]]")
            elif self._take("["):
                table = self._table(self._keys(), of_array=False)
                self._take("]")
            else:
                self._pair(table)

    def _table(self, keys: list[str], *, of_array: bool) -> Place:
        place: Place = ()
        for depth, key in enumerate(keys, start=1):
            place = (*place, key)
            if of_array and depth == len(keys):
                self.last[place] = self.last.get(place, -1) + 1
            if place in self.last:
                self._record(place)
                place = (*place, self.last[place])
            self._record(place)
        return place

    def _pair(self, table: Place) -> None:
        place = table
        for key in self._keys():
            place = (*place, key)
            self._record(place)
        self._take("=")
        self._value(place)

    def _value(self, place: Place) -> None:
        if self._take("["):
            index = 0
            while not self._take("]"):
                self._record((*place, index))
                self._value((*place, index))
                self._take(",")
                index += 1
        elif self._take("{"):
            while not self._take("}"):
                self._pair(place)
                self._take(",")
        else:
            self._peek()
            self._match(_SCALAR)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            key = self._match(_KEY).strip()
            keys.append(str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key)
            if not self._take("."):
                return keys

    def _record(self, place: Place) -> None:
        self.lines.setdefault(place, self.text.count("\n", 0, self.at) + 1)

    def _peek(self) -> str:
        self._match(_SKIPPED)
        return self.text[self.at : self.at + 1]

    def _take(self, token: str) -> bool:
        self._peek()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:  # not valid TOML, which tomllib would have said
            raise ConfigError(f"no {pattern.pattern!r} at {self.at}")
        self.at = found.end()
        return found.group()
