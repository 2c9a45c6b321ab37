from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from softcask.pipeline.config.places import Place, key_lines, parse_key, show_place
from softcask.storage_schemas.errors import ConfigError

TRICKY = r'''# line 1 = "a comment"
title = "a # [no] \" comment" # = here
dotted.deep.key = 1

[ server . "alpha\u0062eta" ]    # line 5
ports = [ 8000,
  8001, # ] not the end
  8002 ]
point = { x = 1, "y z" = [1, { deep = true }], t.u = 3 }

[[teachers]]  # line 11
name = """first
  [[teachers]]
  still "quoted" \""" the first""""
when = 1979-05-27 07:32:00
  [teachers.kwargs]
  width = 8
  [[teachers.crops]]
  size = 1
  [[teachers.crops]]
  size = 2

[[teachers]]
name = 'C:\'
path = """"""
text = """""x""
"""
lines = \'\'\'
it's ''two'' quotes\'\'\'
kwargs.depth = -1.5e3
  [[teachers.crops]]
  size = 3
"quoted key" = +inf
'''.replace(r"\'", "'")


def places(raw: Any, place: Place = ()) -> Iterator[Place]:
    """Every key and index in what tomllib made of a text."""
    if place:
        yield place
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for part, value in items:
        yield from places(value, (*place, part))


def test_every_key_that_tomllib_finds_has_a_line_and_no_other_has() -> None:
    assert set(key_lines(TRICKY)) == set(places(tomllib.loads(TRICKY)))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("title", "title ="),
        ("dotted.deep.key", "dotted.deep.key"),
        ("server.alphabeta", "[ server"),
        ("server.alphabeta.ports[0]", "ports ="),
        ("server.alphabeta.ports[1]", "8001,"),
        ("server.alphabeta.point.x", "point ="),
        ("teachers", "[[teachers]]  # line 11"),
        ("teachers[0].name", 'name = """first'),
        ("teachers[0].when", "when"),
        ("teachers[0].kwargs.width", "width"),
        ("teachers[0].crops[1]", "[[teachers.crops]]\n  size = 2"),
        ("teachers[1].name", "name = 'C"),
        ("teachers[1].lines", "lines"),
        ("teachers[1].kwargs", "kwargs.depth"),
        ("teachers[1].crops[0].size", "size = 3"),
    ],
)
def test_a_key_stands_where_it_is_written(place: str, text: str) -> None:
    assert TRICKY.count(text) == 1
    assert key_lines(TRICKY)[parse_key(place)] == TRICKY[: TRICKY.index(text)].count("\n") + 1


def test_a_place_is_shown_as_it_is_parsed() -> None:
    assert parse_key("teachers[1].crops.0.size") == ("teachers", 1, "crops", 0, "size")
    assert show_place(("teachers", 1, "crops", 0, "size")) == "teachers[1].crops[0].size"


@pytest.mark.parametrize("text", ["", ".", "a..b", "a[x]", "a[-1]", "a b"])
def test_what_is_no_key_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a key path such as"):
        parse_key(text)
