"""Students one after another in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from softcask.jobs.sweeping.students import Student
from softcask.jobs.sweeping.training import Outcome, Tell, train_one


def train_serially(students: Iterable[Student], tell: Tell, *, restart: bool = False) -> Iterator[Outcome]:
    """Train each student, in their order.

    Args:
        students: Which.
        tell: Told where each stands.
        restart: Discard what earlier trainings left.

    Yields:
        How each ended, when it has.
    """
    for student in students:
        yield train_one(student, tell, restart=restart)
