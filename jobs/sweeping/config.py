"""A sweep's file: which student file its students share, and in what they differ. Checked without torch."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from softcask.pipeline.config.places import parse_key
from softcask.pipeline.config.toml import load_toml, read_tables
from softcask.pipeline.parts import Options, ResolvedPath
from softcask.storage_schemas.errors import ConfigError

_NAME = r"[A-Za-z0-9][\w.+-]*(?: [\w.+-]+)*"


class Variant(Options):
    """`[[variants]]`: one way to train, or a grid of them.

    Attributes:
        name: How tables, plot and folders call it.
        set: Values in place of the student file's. A table that names a `kind` replaces the file's, of any
            other each key is put over it.
        grid: Lists of values; the variant is trained with each combination.
    """

    name: str = Field(pattern=f"^{_NAME}$", max_length=60)
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Any] = Field(default_factory=dict)


class SweepConfig(Options):
    """Students that differ in what is stated here and share all else.

    Attributes:
        student: The file of what they share.
        output: Local folder; each student has one of its own in it. None: the student file's, and `-sweep`.
        grid: Lists of values, by keys of the student file; every combination is trained, of each variant.
        variants: None: the student file alone.
    """

    student: ResolvedPath
    output: ResolvedPath | None = None
    grid: dict[str, Any] = Field(default_factory=dict)
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] | None = None


def load_sweep(path: Path, *, grid: Iterable[str] = (), output: Path | None = None) -> SweepConfig:
    """A sweep's file, or a student's, which is then what all students share.

    Args:
        path: TOML; one that has `student` is a sweep's.
        grid: `key.path=value,value,...`, put beside the file's `[grid]` or in place of the same key there.
        output: In place of the file's.

    Raises:
        ConfigError: No such file, or not valid; every problem with its place.
    """
    found = read_tables(path)
    if "student" in found or "variants" in found or "grid" in found:
        sweep = load_toml(path, SweepConfig)
    else:
        sweep = SweepConfig(student=str(path.absolute()))
    axes = {**axes_of(sweep.grid), **parse_grid(grid)}
    changes: dict[str, Any] = {"grid": axes}
    if output is not None:
        changes["output"] = str(output.expanduser().absolute())
    return sweep.model_copy(update=changes)


def axes_of(grid: Mapping[str, Any], above: str = "") -> dict[str, list[Any]]:
    """Values by key path of a `[grid]`, whose keys may be quoted paths, dotted keys or tables in tables.

    Raises:
        ConfigError: Something that is no list of values, or an empty one.
    """
    axes: dict[str, list[Any]] = {}
    for key, value in grid.items():
        place = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            axes |= axes_of(value, place)
        elif isinstance(value, list) and value:
            parse_key(place)
            axes[place] = value
        else:
            raise ConfigError(
                f"grid: {place} is {value!r}, expected a list of values to try, such as [1, 4, 20]"
            )
    return axes


def settings_of(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by key path of a variant's `set`; see `Variant`."""
    settings: dict[str, Any] = {}
    for key, value in tables.items():
        place = f"{above}.{key}" if above else key
        if isinstance(value, Mapping) and value and "kind" not in value:
            settings |= settings_of(value, place)
        else:
            parse_key(place)
            settings[place] = value
    return settings


def parse_grid(options: Iterable[str]) -> dict[str, list[Any]]:
    """`--grid` options; values are TOML, and what is not TOML is taken as a string.

    Raises:
        ConfigError: Not `key.path=value,value,...`.
    """
    axes: dict[str, list[Any]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not text.strip():
            raise ConfigError(
                f"--grid {option}: expected key.path=value,value,..., as in targets.temperature=1,4,20"
            )
        parse_key(key.strip())
        if key.strip() in axes:
            raise ConfigError(f"--grid {key.strip()} is given twice; name all its values in one")
        axes[key.strip()] = _values(text)
    return axes


def _values(text: str) -> list[Any]:
    try:
        values: list[Any] = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [_value(part.strip()) for part in text.split(",")]
    return values


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
