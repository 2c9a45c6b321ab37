"""Which of a teacher's outputs are the store's classes: by number, or by the names that its model has."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from softcask.storage_schemas.errors import ConfigError, TeacherError

BY_NAME = "by_name"

ClassMap = tuple[int, ...] | tuple[str, ...] | Literal["by_name"]
"""Outputs in the order of the store's classes: numbers, names, or "by_name" for the names of the run."""

OutputNames = Sequence[tuple[str, ...]]
"""The names of each output, the one to show first; any of them finds it, if it is no other's."""

_MOST_LISTED = 4


def check_class_map(class_map: ClassMap | None) -> None:
    """Refuse a class map that makes no sense for any teacher.

    Raises:
        ConfigError: It is empty, negative, or names an output twice.
    """
    if class_map is None or class_map == BY_NAME:
        return
    numbers = [output for output in class_map if isinstance(output, int)]
    if not class_map or min(numbers, default=0) < 0:
        raise ConfigError(f"class_map must list outputs from 0 on, found {list(class_map)}")
    if len(set(class_map)) < len(class_map):
        raise ConfigError(f"class_map names an output twice: {list(class_map)}")


def names_outputs(class_map: ClassMap | None) -> bool:
    """Whether the names of the model's outputs are needed to tell which are kept."""
    return isinstance(class_map, tuple) and isinstance(class_map[0], str)


def kept_outputs(class_map: ClassMap | None, names: OutputNames | None) -> tuple[int, ...] | None:
    """Numbers of the outputs to keep, in the order of the store's classes; None: all as they come.

    Args:
        class_map: As configured.
        names: Of the model's outputs, None where it does not name them.

    Raises:
        TeacherError: A name is no output's, or more than one's.
    """
    if class_map is None:
        return None
    if class_map == BY_NAME:
        raise TeacherError('class_map = "by_name" takes the names of a run\'s [classes]; this is no run')
    wanted = tuple(output for output in class_map if isinstance(output, str))
    if not wanted:
        return tuple(output for output in class_map if isinstance(output, int))
    if names is None:
        raise TeacherError(
            f"class_map names classes ({_few(wanted)}), but the model does not name its outputs; "
            "list their numbers"
        )
    found = _positions(names)
    problems = [*_missing(wanted, found), *_ambiguous(wanted, found)]
    if problems:
        raise TeacherError("; ".join(problems) + ". Say which outputs they are by number, in class_map")
    kept = tuple(found[name][0] for name in wanted)
    for output, times in Counter(kept).items():
        if times > 1:
            twice = [name for name, position in zip(wanted, kept, strict=True) if position == output]
            raise TeacherError(f"{_few(twice)} are one output of the model, number {output}")
    return kept


def shown_names(names: OutputNames) -> tuple[str, ...]:
    """A name an output, each once: of those that share one, the number is added ("crane (517)")."""
    times = Counter(each[0] for each in names)
    return tuple(
        each[0] if times[each[0]] == 1 else f"{each[0]} ({index})" for index, each in enumerate(names)
    )


def with_short_names(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """ImageNet's classes are named by lists of synonyms, "tench, Tinca tinca": each finds its class, too."""
    return tuple((name, *(name.split(", ") if ", " in name else ())) for name in names)


def near(name: str, names: Sequence[str]) -> str:
    """What to add to a message about a name that is none of these."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or list(names[:3])
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _positions(names: OutputNames) -> Mapping[str, Sequence[int]]:
    """By name: the outputs called so first of all, or, where there is none, those called so, too."""
    first: defaultdict[str, list[int]] = defaultdict(list)
    other: defaultdict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(names):
        first[each[0]].append(index)
        for name in dict.fromkeys(each[1:]):
            other[name].append(index)
    return {**other, **first}


def _missing(wanted: Sequence[str], found: Mapping[str, Sequence[int]]) -> Iterator[str]:
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    lower = {name.lower().replace("_", " "): name for name in found}
    lines = []
    for name in missing[:_MOST_LISTED]:
        close = difflib.get_close_matches(name.lower().replace("_", " "), lower, n=2)
        near = " or ".join(repr(lower[each]) for each in close)
        lines.append(f"{name!r} (near: {near})" if near else repr(name))
    more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
    yield f"{len(missing)} of {len(wanted)} classes are no output of the model: {', '.join(lines)}{more}"


def _ambiguous(wanted: Sequence[str], found: Mapping[str, Sequence[int]]) -> Iterator[str]:
    for name in [name for name in wanted if len(found.get(name, ())) > 1][:_MOST_LISTED]:
        yield f"{name!r} is the name of outputs {', '.join(map(str, found[name]))}"


def _few(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return ", ".join(map(repr, names[:_MOST_LISTED])) + more
