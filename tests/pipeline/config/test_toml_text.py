"""A config written as TOML is read back by the standard library as what it was."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.pipeline.config.toml_text import to_toml

SCALARS = (
    st.text(st.characters(codec="utf-8"))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(UTC))
)
KEYS = st.text(st.characters(codec="utf-8"), min_size=1)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_what_is_written_is_read_back(tables: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tables)) == tables


def test_it_reads_as_a_person_would_write_it() -> None:
    tables = {
        "python_path": ["."],
        "teachers": [{"name": "a", "kwargs": {"width": 48}}, {"name": "b"}],
        "executor": {"start_timeout": 1e9, "shared_paths": []},
    }
    assert to_toml(tables) == (
        'python_path = ["."]\n\n[[teachers]]\nname = "a"\n\n[teachers.kwargs]\nwidth = 48\n\n[[teachers]]\n'
        'name = "b"\n\n[executor]\nstart_timeout = 1000000000.0\nshared_paths = []\n'
    )


def test_what_toml_has_no_form_for_is_named() -> None:
    with pytest.raises(TypeError, match="no form for None"):
        to_toml({"a": [date(2026, 1, 1), time(1), datetime(2026, 1, 1), None]})
