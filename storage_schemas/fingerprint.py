"""Identity by content: canonical JSON, its digest, and differences field by field.

A value without one stable form raises instead of being guessed at, so that equal digests mean equal facts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from softcask.storage_schemas.errors import StoreError

_MISSING = "(absent)"
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def canonical(value: Any) -> Any:
    """`value` in plain JSON types, tuples as lists, keys as strings.

    Raises:
        StoreError: A value is NaN, infinite, or of a type that has no stable form; the message says where.
    """
    return _canonical(value, "")


def _canonical(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int) or _is_text(value):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        if bad := [key for key in value if not _is_text(key)]:
            raise StoreError(
                f"{where or 'value'} has the key {bad[0]!r}, which is no text; it has no stable form"
            )
        return {key: _canonical(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise StoreError(
        f"{where or 'value'} is {value!r} ({type(value).__name__}), which has no stable form to be "
        "identified by; use numbers, strings, booleans, lists and tables"
    )


def _is_text(value: Any) -> bool:
    """Whether it is a string that UTF-8 can hold; names of files may not be."""
    return isinstance(value, str) and _HALF_A_CHARACTER.search(value) is None


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, as `sha256:HEX`."""
    return f"sha256:{hashlib.sha256(_text(canonical(value)).encode()).hexdigest()}"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """One line for each leaf in which two JSON-able values differ: `path: found X, expected Y`."""
    # As text, because to Python [1], [1.0] and [True] are equal, and to `digest` they are not.
    if _text(found) == _text(expected):
        return []
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = sorted({*found, *expected})
        return [
            line
            for key in keys
            for line in differences(
                found.get(key, _MISSING), expected.get(key, _MISSING), f"{where}.{key}".lstrip(".")
            )
        ]
    return [f"{where or 'value'}: found {_short(found)}, expected {_short(expected)}"]


def _short(value: Any) -> str:
    text = value if value is _MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
