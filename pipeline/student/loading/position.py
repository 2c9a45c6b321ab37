"""Where a loader stands, in rows consumed: plain numbers, good for any number of processes and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softcask.storage_schemas.errors import CheckpointError
from softcask.storage_schemas.fingerprint import differences

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the rows of all epochs.

    Attributes:
        epoch: Epoch, from 0.
        rows: Rows of it that all processes together have consumed.
    """

    epoch: int = 0
    rows: int = 0

    def state(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """As it is kept: JSON-able, with what the loader is."""
        return {"format": _FORMAT, "epoch": self.epoch, "rows": self.rows, "loader": dict(identity)}

    @classmethod
    def of(cls, state: Mapping[str, Any], identity: Mapping[str, Any], rows: int) -> Position:
        """The place that a state names, of a loader that is what the state's was.

        Args:
            state: What `state` gave, perhaps by way of JSON.
            identity: What the loader is.
            rows: Rows of an epoch.

        Raises:
            CheckpointError: It is no state, of a newer softcask, or of other rows or another order.
        """
        try:
            number, epoch, done, found = (state[name] for name in ("format", "epoch", "rows", "loader"))
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{str(state)[:80]} is no state of a loader ({error!r}); expected what state_dict() gave"
            ) from error
        if number != _FORMAT:
            raise CheckpointError(f"a loader's state of format {number}, this softcask reads {_FORMAT}")
        if lines := differences(dict(identity), found):
            listed = "".join(f"\n  {line}" for line in lines)
            raise CheckpointError(
                f"the state is of a loader with other rows or another order:{listed}\n"
                "(found: of this loader; expected: of the state's). Make it as it was, or begin anew without"
            )
        if not all(isinstance(each, int) for each in (epoch, done)) or epoch < 0 or not 0 <= done <= rows:
            raise CheckpointError(f"a loader's state says epoch {epoch!r}, row {done!r} of {rows}")
        return cls(epoch=epoch, rows=done).normal(rows)

    def normal(self, rows: int) -> Position:
        """The same place; an epoch's end is the next one's begin."""
        return Position(epoch=self.epoch + 1) if self.rows == rows else self
