"""Loads a TOML file into an options model, or lists everything that is wrong with it.

People fix what they are shown: every problem comes at once, with its line, and an unknown key with the keys that
would have been understood.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError

M = TypeVar("M", bound=Options)


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
    try:
        raw = tomllib.loads(file.read_text("utf-8"))
        return model.model_validate(raw, context={"base": str(file.absolute().parent)})
    except (OSError, ValidationError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(error)) from error


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """The overrides in `--set key.path=value` arguments; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: An argument without `=`.
    """
    raise NotImplementedError
