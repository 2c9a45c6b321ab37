"""Tell an error that every task has from one that a few have: the first must not go through a million."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from softcask.storage_schemas.errors import StoreAccess, StoreFull

_FIRST, _LATER, _OF_THE_STORE = 3, 16, 4
_VARYING = re.compile(r"'[^']*'|\b[0-9a-f]{6,}\b|\d+(?:\.\d+)?(?:e[+-]?\d+)?")
"""What differs between two messages about one thing: names in quotes, numbers, digests."""


@dataclass(slots=True, kw_only=True)
class Streak:
    """Errors since a task last went well.

    Attributes:
        tasks: Tasks in all; of fewer than three, all have to fail.
    """

    tasks: int
    _succeeded: bool = False
    _kind: str = ""
    _failed: set[int] = field(default_factory=set)

    def ended_well(self) -> None:
        """A task was done."""
        self._succeeded = True
        self._failed.clear()

    def failed(self, number: int, error: Exception, *, given_up: bool) -> bool:
        """A task went wrong.

        Args:
            number: Which one; the same at each of its attempts.
            error: How.
            given_up: Whether that was its last attempt.

        Returns:
            Whether all tasks seem to fail so: the first three did, whatever their attempts, and none went
            well; or later sixteen were given up in a row, or four of which the store took none. A full disk
            is everybody's at once: whoever raises it has waited for room already.
        """
        if isinstance(error, StoreFull):
            return True
        if self._succeeded and not given_up:
            return False
        if (kind := kind_of(error)) != self._kind:
            self._kind = kind
            self._failed.clear()
        self._failed.add(number)
        if not self._succeeded:
            return len(self._failed) >= min(_FIRST, self.tasks)
        return len(self._failed) >= (_OF_THE_STORE if isinstance(error, StoreAccess) else _LATER)


def kind_of(error: Exception) -> str:
    """The same for errors that differ only in which rows, units or values they are about."""
    return f"{type(error).__name__}: {_VARYING.sub('#', str(error))}"
