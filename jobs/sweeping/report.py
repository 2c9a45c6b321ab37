"""What came of a sweep, as numbers: students that differ in their seed alone are taken together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from softcask.jobs.sweeping.students import SEED, Student, short_keys, shown_value
from softcask.jobs.sweeping.training import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Students that differ in nothing but their seed.

    Attributes:
        name: What is different about them.
        variant: Of the sweep's file; empty where there are none.
        varied: Values of the grid's keys, but for the seed.
        outcomes: Of each that has ended.
    """

    name: str
    variant: str
    varied: Mapping[str, Any]
    outcomes: Sequence[Outcome]

    @property
    def errors(self) -> list[int]:
        """Test errors of each that was trained and evaluated."""
        return [
            each.result.errors for each in self.outcomes if each.result and each.result.errors is not None
        ]

    @property
    def losses(self) -> list[float]:
        """Mean loss of the last epoch of each that was trained."""
        return [each.result.loss for each in self.outcomes if each.result]

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(each.error is not None for each in self.outcomes)


def grouped(students: Sequence[Student], outcomes: Mapping[str, Outcome]) -> list[Group]:
    """Students by all but their seed, in the order of the sweep.

    Args:
        students: All of the sweep.
        outcomes: How they ended, by name.
    """
    short = short_keys(key for student in students for key in student.varied)
    groups: dict[str, Group] = {}
    for student in students:
        varied = {key: value for key, value in student.varied.items() if key != SEED}
        parts = [f"{short[key]}={shown_value(value)}" for key, value in varied.items()]
        name = ", ".join([student.variant, *parts] if student.variant else parts) or "all"
        known = groups.get(name)
        ended = [
            *(known.outcomes if known else ()),
            *([outcomes[student.name]] if student.name in outcomes else ()),
        ]
        groups[name] = Group(name=name, variant=student.variant, varied=varied, outcomes=ended)
    return list(groups.values())


def best(groups: Sequence[Group]) -> Group | None:
    """The one with the fewest errors on average; None where nothing was evaluated."""
    evaluated = [group for group in groups if group.errors]
    return min(evaluated, key=lambda group: mean(group.errors)) if evaluated else None


def mean(numbers: Sequence[float]) -> float:
    """Their arithmetic mean."""
    return math.fsum(numbers) / len(numbers)


def spread(numbers: Sequence[float], digits: int = 0) -> str:
    """`102`, or of several `102.3 (98 to 107)`; a dash of none."""
    if not numbers:
        return "-"
    if len(numbers) == 1:
        return f"{numbers[0]:,.{digits}f}"
    low, high = min(numbers), max(numbers)
    return f"{mean(numbers):,.{digits + 1}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def columns_and_rows(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """The table: what is varied, and what came of it."""
    keys = list(dict.fromkeys(key for group in groups for key in group.varied))
    short = short_keys(keys)
    variants = any(group.variant for group in groups)
    seeds = any(len(group.outcomes) > 1 for group in groups)
    evaluated = any(group.errors for group in groups)
    columns = [*(["variant"] if variants else []), *(short[key] for key in keys)]
    columns += [*(["seeds"] if seeds else []), *(["test errors"] if evaluated else []), "loss", "seconds", ""]
    rows = []
    for group in groups:
        row = [group.variant] if variants else []
        row += [shown_value(group.varied[key]) if key in group.varied else "-" for key in keys]
        row += [f"{len(group.losses)}"] if seeds else []
        row += [spread(group.errors)] if evaluated else []
        seconds = math.fsum(each.result.seconds for each in group.outcomes if each.result)
        rows.append([*row, spread(group.losses, 4), f"{seconds:,.1f}", _state(group)])
    return columns, rows


def document(students: Sequence[Student], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The whole answer, JSON-able: each student with what was varied, where it is and what came of it."""
    return {
        "students": [_told(student, outcomes.get(student.name)) for student in students],
        "failed": sum(each.error is not None for each in outcomes.values()),
    }


def _told(student: Student, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "name": student.name,
        "variant": student.variant,
        "varied": dict(student.varied),
        "output": student.config.output,
        "trained_now": outcome.trained if outcome else False,
        "error": outcome.error if outcome else "it was not begun",
        "result": asdict(outcome.result) if outcome and outcome.result else None,
    }


def _state(group: Group) -> str:
    if group.failed:
        return "failed" if group.failed == len(group.outcomes) else f"{group.failed} failed"
    return "" if any(each.trained for each in group.outcomes) else "trained before"
