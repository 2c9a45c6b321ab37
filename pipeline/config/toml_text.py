"""A config as TOML text: the standard library reads TOML and does not write it.

For configs that are handed on, as a submitted job's is: their overrides are put in, their comments are gone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(raw: Mapping[str, Any]) -> str:
    """The text of which `tomllib` makes `raw` again.

    Args:
        raw: What tomllib gives: tables, lists, strings, numbers, booleans, dates and times.

    Raises:
        TypeError: Something that TOML has no form for.
    """
    return "\n".join(_lines(raw, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in table.items():
        if not _is_section(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        header = ".".join(map(_key, (*path, key)))
        if isinstance(value, Mapping):
            yield f"\n[{header}]"
            yield from _lines(value, (*path, key))
        elif _is_section(value):
            for each in value:
                yield f"\n[[{header}]]"
                yield from _lines(each, (*path, key))


def _is_section(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, Mapping) for each in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)  # nan, inf and -inf are TOML as they are
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"TOML has no form for {value!r}, a {type(value).__name__}")


def _string(text: str) -> str:
    # JSON's strings are TOML's, but for the one control character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
