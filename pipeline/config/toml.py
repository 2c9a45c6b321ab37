"""Loads a TOML file into an options model, or lists everything that is wrong with it.

People fix what they are shown: every problem comes at once, with its line, and an unknown key with the keys
that would have been understood.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from softcask.pipeline.config.credentials import secrets_in
from softcask.pipeline.config.places import Place, key_lines, parse_key, show_place
from softcask.pipeline.config.sections import CUSTOM, known_keys
from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError

M = TypeVar("M", bound=Options)

_SHOWN_CHARACTERS = 60


def load_toml(path: str | PathLike[str], model: type[M], *, overrides: Mapping[str, Any] | None = None) -> M:
    """Read and validate a TOML file.

    Args:
        path: The file; `ResolvedPath` fields start at its folder.
        model: What the file must be.
        overrides: Values put in place of the file's, by key path (`"teachers[0].batch_size"`), as
            `parse_overrides` makes them; relative paths in them start at the file's folder, too.

    Raises:
        ConfigError: No such file, not TOML, or not valid; the message lists every problem with its place.
    """
    file = Path(path)
    text = _read(file)
    replaced = {parse_key(key): value for key, value in (overrides or {}).items()}
    raw = _overridden(_parse(text, file), replaced)
    where = _Whereabouts(file=file, lines=key_lines(text), replaced=frozenset(replaced))
    secrets = dict(secrets_in(raw))
    for place in secrets:
        replace_at(raw, place, "***")
    problems = list(secrets.items())
    try:
        options = model.model_validate(raw, context={"base": str(file.absolute().parent)})
    except ValidationError as error:
        found = [problem for problem in error.errors(include_url=False) if problem["loc"] not in secrets]
        problems += [(problem["loc"], _say(problem, model, raw)) for problem in found]
    if problems:
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        told = [text for _, text in sorted(where.tell(place, message) for place, message in problems)]
        raise ConfigError("\n  ".join([f"{file} is not valid, {many}:", *told]))
    return options


def read_tables(path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The tables of a TOML file with the overrides put in, not validated; see `load_toml`.

    Raises:
        ConfigError: No such file, not TOML, or no place for an override.
    """
    raw = _parse(_read(Path(path)), Path(path))
    return _overridden(raw, {parse_key(key): value for key, value in (overrides or {}).items()})


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """The overrides in `--set key.path=value` arguments; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: An argument that is not a key path, `=` and a value.
    """
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected key.path=value, as in teachers[0].batch_size=64")
        parse_key(key.strip())
        try:
            overrides[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key.strip()] = value
    return overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whereabouts:
    file: Path
    lines: Mapping[Place, int]
    replaced: frozenset[Place]

    def tell(self, place: Place, message: str) -> tuple[int, str]:
        """Line, and `run.toml:12: teachers[1].factory: message`; what encloses a missing key has the line."""
        shown = f"{show_place(place)}: {message}" if place else message
        enclosing = [place[:length] for length in range(len(place), 0, -1)]
        for key in enclosing:
            if key in self.replaced:
                return 0, f"--set {show_place(key)}: {shown}"
        for key in enclosing:
            if line := self.lines.get(key):
                return line, f"{self.file}:{line}: {shown}"
        for key in self.replaced:
            if place and key[: len(place)] == place:
                return 0, f"--set {show_place(key)}: {shown}"
        return 0, f"{self.file}: {shown}"


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; expected a TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text, as TOML must be: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, at = str(error).rstrip(")").partition(" (at ")
        line = (
            at.removeprefix("line ").partition(",")[0] if at.startswith("line ") else len(text.splitlines())
        )
        raise ConfigError(f"{file}:{line}: not TOML: {message} ({at})") from error


def _overridden(raw: dict[str, Any], replaced: Mapping[Place, Any]) -> dict[str, Any]:
    for place, value in replaced.items():
        replace_at(raw, place, value)
    return raw


def replace_at(raw: dict[str, Any], place: Place, value: Any) -> None:
    """Put a value at a place of raw tables; tables that are missing on the way there are made.

    Raises:
        ConfigError: There is no such place: an element that a list does not have, a key of what is no table.
    """
    section: Any = raw
    for depth, part in enumerate(place, start=1):
        if isinstance(section, list) and isinstance(part, int):
            fits = part < len(section)
        else:
            fits = isinstance(section, dict) and isinstance(part, str)
        if not fits:
            raise ConfigError(
                f"--set {show_place(place)}: no {show_place(place[:depth])} in the file to set or to set in"
            )
        if depth == len(place):
            section[part] = deepcopy(value)
        else:
            section = section[part] if isinstance(part, int) else section.setdefault(part, {})


def _say(problem: ErrorDetails, model: type[Options], raw: Any) -> str:
    if problem["type"] == "missing":
        return "field required"
    if problem["type"] == "extra_forbidden":
        return _unknown_key(str(problem["loc"][-1]), known_keys(model, raw, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in (CUSTOM, "value_error"):
        return message
    found = repr(problem["input"])
    shown = found if len(found) <= _SHOWN_CHARACTERS else f"{found[:_SHOWN_CHARACTERS]}..."
    return f"{message[:1].lower()}{message[1:]}, found {shown}"


def _unknown_key(key: str, known: list[str]) -> str:
    if not known:
        return "unknown key"
    close = get_close_matches(key, known, 1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key; {guess}known keys: {', '.join(known)}"
