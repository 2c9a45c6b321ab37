"""How a part is added: a registry of kinds, and the base of every kind's options.

Sources, teachers, rules and losses are looked up by the `kind` that a config names. Built-in kinds are one
line each where their registry stands; third parties add theirs through a Python entry point. Only a user's
own config leads here: what a *store* names (a codec) is looked up elsewhere, among the built-in ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from softcask.storage_schemas.errors import UnknownKind

T = TypeVar("T")


def resolve_path(path: str, info: ValidationInfo) -> str:
    """A local path, absolute where the config's folder is known; a URL as it is."""
    base = (info.context or {}).get("base")
    if base is None or "://" in path or "::" in path:
        return path
    return str(Path(base, Path(path).expanduser()).absolute())


ResolvedPath = Annotated[str, AfterValidator(resolve_path)]
"""A local path, absolute once validated (relative to the config's own folder), or an fsspec URL."""

MAY_BE_PATH = object()
"""Marks a field that holds a path where it is absolute once validated, and may hold another name instead."""


MAY_BE_MADE = object()
"""Marks a path that a run makes where nothing is: it is part of no input, and travels with no job."""


class Options(BaseModel):
    """Base of every section of a config: frozen, and an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry(Generic[T]):
    """Kinds of one part, by name.

    Attributes:
        part: What the kinds are kinds of, for messages ("teacher").
        group: Entry-point group that third parties register under ("softcask.teachers").
        builtin: Kind -> "module:name", imported when first asked for, so that a registry costs nothing.
    """

    part: str
    group: str
    builtin: Mapping[str, str] = field(default_factory=dict)

    def known(self) -> tuple[str, ...]:
        """All kinds that `get` would find, sorted."""
        return tuple(sorted({*self.builtin, *(point.name for point in entry_points(group=self.group))}))

    def get(self, kind: str) -> T:
        """The object registered under `kind`.

        Args:
            kind: Name as a config writes it.

        Raises:
            UnknownKind: No such kind; the message lists the known ones.
        """
        if target := self.builtin.get(kind):
            module, _, name = target.partition(":")
            return cast(T, getattr(import_module(module), name))
        for point in entry_points(group=self.group, name=kind):
            return cast(T, point.load())
        raise UnknownKind(f"unknown {self.part} kind {kind!r}; known kinds: {', '.join(self.known())}")


def kind_of(section: Any) -> str | None:
    """The `kind` that a raw config section names, or None where it names none."""
    return section.get("kind") if isinstance(section, Mapping) else None
