"""How many rows a teacher computes at once: as many as were asked for, or as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from softcask.pipeline.teachers.base import AUTO_ON_DEVICE, AUTO_ON_HOST, StagedTeacher, Teacher
from softcask.storage_schemas.errors import TeacherOutOfMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
BatchT = TypeVar("BatchT", bound="Sliceable")


class Sliceable(Sized, Protocol):
    """Rows that can be taken apart."""

    def __getitem__(self, rows: slice) -> Any:
        """Some of them."""


class FittedTeacher:
    """A teacher, and how many rows of it fit; that is remembered as long as it is loaded.

    Attributes:
        teacher: The teacher itself.
        name: Its name.
        rows: Rows that are computed at once.
        is_auto: Whether these are found by trial.
    """

    def __init__(self, teacher: Teacher, batch_size: int | Literal["auto"]) -> None:
        """Begin with `batch_size`; "auto" begins with what small models take, and halves."""
        self.teacher, self.name = teacher, teacher.name
        self.is_auto = batch_size == "auto"
        self.rows = _first_trial(teacher) if batch_size == "auto" else batch_size
        self._told: list[str] = []

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """See `Teacher.logits`; any number of rows but none.

        Raises:
            TeacherOutOfMemory: Not one row fits, or not as many as were asked for.
        """
        return np.concatenate([found for _, found in self.in_pieces(inputs_B, self.teacher.logits)])

    def stage(self, inputs_B: NDArray[Any]) -> Any:
        """See `StagedTeacher.stage`; the rows themselves where the teacher has no such step."""
        return self.teacher.stage(inputs_B) if isinstance(self.teacher, StagedTeacher) else inputs_B

    def state_digest(self) -> str:
        """See `Teacher.state_digest`."""
        return self.teacher.state_digest()

    def in_pieces(self, batch_B: BatchT, compute: Callable[[BatchT], T]) -> Iterator[tuple[slice, T]]:
        """What `compute` makes of a batch, with its rows: in one piece, or as many as memory asks for.

        Raises:
            TeacherOutOfMemory: As `logits`.
        """
        first = 0
        while first < len(batch_B):
            rows = slice(first, min(first + self.rows, len(batch_B)))
            try:
                found = compute(batch_B[rows])
            except TeacherOutOfMemory as error:
                self._halve(rows.stop - rows.start, error)
                continue
            first = rows.stop
            yield rows, found

    def told(self) -> tuple[str, ...]:
        """What should be looked at, each said once."""
        told, self._told = tuple(self._told), []
        return told

    def _halve(self, tried: int, error: TeacherOutOfMemory) -> None:
        if not self.is_auto:
            raise TeacherOutOfMemory(
                f'{error}. Set a lower batch_size than {self.rows}, or batch_size = "auto". Either changes '
                "last bits: a teacher that has units committed needs a new name for that."
            ) from error
        if tried <= 1:
            raise TeacherOutOfMemory(f"{error}. One row alone does not fit; use a larger device") from error
        self.rows = tried // 2
        self._told.append(f"{error}; {self.rows} rows at once from here on")


def _first_trial(teacher: Teacher) -> int:
    on_host = not isinstance(teacher, StagedTeacher) or teacher.device.type == "cpu"
    return AUTO_ON_HOST if on_host else AUTO_ON_DEVICE
