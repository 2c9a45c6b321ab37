"""From a sweep to its students: every combination, with a name that says what is different about it.

Names are made of keys and values alone, so that the same sweep finds its students again, and a longer grid
finds those of the shorter one.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softcask.jobs.sweeping.config import SweepConfig, axes_of, settings_of
from softcask.pipeline.student.config import StudentConfig, load_student
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.fingerprint import digest

SEED = "training.seed"
_MOST = 10_000
_LONGEST = 120
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """One student of a sweep.

    Attributes:
        name: Its own in the sweep, and its folder's.
        variant: Of the file; empty where there are none.
        varied: Values of the grid's keys, in the order of the grid.
        config: What `train_student` takes.
    """

    name: str
    variant: str
    varied: Mapping[str, Any]
    config: StudentConfig


def plan_students(sweep: SweepConfig, settings: Mapping[str, Any] | None = None) -> tuple[Student, ...]:
    """All students of a sweep, validated, in the order of variants and grid.

    Args:
        sweep: What to try.
        settings: Values in place of the student file's, for all students, by key path.

    Raises:
        ConfigError: A student is not valid, two are the same, there is only one, or more than 10,000.
    """
    drafts = list(_drafts(sweep))
    short = short_keys(key for _, _, varied in drafts for key in varied)
    names = [_name(variant, varied, short) for variant, _, varied in drafts]
    _refuse_repeated(names)
    output = _output(sweep, settings or {})
    students: list[Student] = []
    problems: list[str] = []
    for name, (variant, own, varied) in zip(names, drafts, strict=True):
        overrides = {**(settings or {}), **own, **varied, "output": str(output / name)}
        try:
            config = load_student(sweep.student, overrides)
        except ConfigError as error:
            problems.append(f"{name}: {error}")
        else:
            students.append(Student(name=name, variant=variant, varied=varied, config=config))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = problems[:_SHOWN_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        raise ConfigError(f"{len(problems)} of {len(names)} students are not valid:\n" + "\n".join(shown))
    return tuple(students)


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key path by its last part, where that is enough to tell it from the others."""
    unique = list(dict.fromkeys(keys))
    last = Counter(key.rpartition(".")[2] for key in unique)
    return {key: key if last[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in unique}


def shown_value(value: Any) -> str:
    """A value as a table shows it: `4`, `0.001`, `300x300`, `hard`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        return "x".join(shown_value(each) for each in value)
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        others = [f"{key}={shown_value(each)}" for key, each in value.items() if key != "kind"]
        return " ".join([value["kind"], *others])
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _drafts(sweep: SweepConfig) -> Iterable[tuple[str, dict[str, Any], dict[str, Any]]]:
    shared = axes_of(sweep.grid)
    ways = [(each.name, settings_of(each.set), axes_of(each.grid)) for each in sweep.variants or ()]
    count = 0
    for variant, own, axes in ways or [("", {}, {})]:
        if both := sorted({*own} & {*shared, *axes}):
            raise ConfigError(f"variant {variant!r} sets {both[0]}, which is in its grid, too; leave one out")
        if own_output := [key for key in {*own, *shared, *axes} if key.partition(".")[0] == "output"]:
            raise ConfigError(
                f"{own_output[0]} cannot be varied: each student has its own folder in the sweep's output"
            )
        every = {**shared, **axes}
        for values in itertools.product(*every.values()):
            count += 1
            if count > _MOST:
                raise ConfigError(f"the grid has more than {_MOST:,} students; take values or keys out")
            yield variant, own, dict(zip(every, values, strict=True))
    if count < 2:
        raise ConfigError(
            "there is nothing to vary: give --grid targets.temperature=1,4,20, or a sweep's file with "
            "[grid] or [[variants]]; one student alone is trained by softcask train"
        )


def _name(variant: str, varied: Mapping[str, Any], short: Mapping[str, str]) -> str:
    parts = [f"{short[key]}={shown_value(value)}" for key, value in varied.items()]
    wanted = ",".join([variant, *parts] if variant else parts)
    name = re.sub(r"[^\w.+=,-]+", "_", wanted)
    if len(name) > _LONGEST or name != wanted.replace(" ", "_"):
        # What was cut or replaced may have been all that tells two students apart.
        name = f"{name[:_LONGEST]}-{digest({'variant': variant, 'varied': dict(varied)})[7:15]}"
    return name


def _refuse_repeated(names: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(
            f"{len(twice)} students are in the sweep more than once ({twice[0]}): a value stands twice in a "
            "list, or two variants have one name"
        )


def _output(sweep: SweepConfig, settings: Mapping[str, Any]) -> Path:
    if "output" in settings:
        raise ConfigError("--set output: of a sweep, the folder is given by --output")
    if sweep.output is None:
        return Path(f"{load_student(sweep.student, settings).output}-sweep")
    if "://" in sweep.output or "::" in sweep.output:
        raise ConfigError(f"output: found {sweep.output!r}, expected a local folder")
    return Path(sweep.output)
