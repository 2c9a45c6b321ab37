"""Paths are found by their fields' types, whatever the part and however deep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from softcask.pipeline.config.local_paths import local_path, local_paths
from softcask.pipeline.parts import MAY_BE_MADE, MAY_BE_PATH, Options, ResolvedPath


class Inner(Options):
    weights: ResolvedPath | None = None
    name: str = "/not/a/path/by/type"


class Outer(Options):
    uri: ResolvedPath
    extra: tuple[ResolvedPath, ...] = ()
    by_name: dict[str, ResolvedPath] = Field(default_factory=dict)
    inner: tuple[Inner, ...] = ()
    either: ResolvedPath | int = 0
    cache: Annotated[ResolvedPath | None, MAY_BE_MADE] = None
    model: Annotated[str, MAY_BE_PATH] = "hub/name"
    local: Annotated[str, MAY_BE_PATH] = "/models/local"


def test_every_path_is_found_with_its_place() -> None:
    raw = {
        "uri": "cask",
        "extra": ["a", "s3://bucket/b", "/c"],
        "by_name": {"x": "d"},
        "inner": [{}, {"weights": "../e"}],
        "either": "f",
        "cache": "made/by/the/run",
    }
    options = Outer.model_validate(raw, context={"base": "/base"})
    assert dict(local_paths(options)) == {
        ("uri",): Path("/base/cask"),
        ("extra", 0): Path("/base/a"),
        ("extra", 2): Path("/c"),
        ("by_name", "x"): Path("/base/d"),
        ("inner", 1, "weights"): Path("/base/../e"),
        ("either",): Path("/base/f"),
        ("local",): Path("/models/local"),
    }


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("local:///a", "/a"),
        ("s3://bucket/a", None),
        ("simplecache::s3://bucket/a", None),
    ],
)
def test_an_address_is_a_local_path_or_none(address: str, path: str | None) -> None:
    assert local_path(address) == (path if path is None else Path(path))
