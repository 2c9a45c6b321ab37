"""Which paths of this machine a validated config names, and where: by that is found what travels with it.

A field tells by its type: every path in a config is a `ResolvedPath`, or is marked with `MAY_BE_PATH`, in
options of third parties too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from softcask.pipeline.config.places import Place
from softcask.pipeline.parts import MAY_BE_MADE, MAY_BE_PATH, Options, ResolvedPath

_FILE_URLS = ("file://", "local://")


def local_path(address: str) -> Path | None:
    """The path on this machine's own file system that an address means; None for anywhere else."""
    for scheme in _FILE_URLS:
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme))
    return None if "://" in address or "::" in address else Path(address)


def local_paths(options: Options, place: Place = ()) -> Iterator[tuple[Place, Path]]:
    """Every local path that the options name, absolute, with its place: `(("teachers", 0, "weights"), ...)`.

    Those that a run makes by itself (`MAY_BE_MADE`) are left out.

    Args:
        options: Validated with a `base`, so that its paths are absolute.
        place: Where these options stand in the whole config.
    """
    for name, field in type(options).model_fields.items():
        if MAY_BE_MADE not in field.metadata:
            yield from _paths(getattr(options, name), (field.annotation, *field.metadata), (*place, name))


def _paths(value: Any, hint: Any, place: Place) -> Iterator[tuple[Place, Path]]:
    if isinstance(value, Options):
        yield from local_paths(value, place)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _paths(each, hint, (*place, key))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _paths(each, hint, (*place, index))
    elif isinstance(value, str) and _is_path(hint):
        path = local_path(value)
        if path is not None and path.is_absolute():  # what else the field may be, such as "auto", is not
            yield place, path


def _is_path(hint: Any) -> bool:
    if isinstance(hint, tuple):  # a field as pydantic keeps it: its type, then what an Annotated added
        return any(mark in _MARKS for mark in hint[1:]) or _is_path(hint[0])
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return any(mark in _MARKS for mark in marks) or _is_path(inner)
    return any(_is_path(inner) for inner in get_args(hint))


_MARKS = [get_args(ResolvedPath)[1], MAY_BE_PATH]
