"""What all sources have in common but reading: how many rows, their ids and labels, what tells a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.storage_schemas.errors import TransferSetError

NOT_FINITE = "input holds NaN or infinity"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiedRows:
    """Rows by position, without a way to read them.

    Attributes:
        rows: How many.
        input_shape: Shape of one row.
        input_dtype: Element type that `read` gives, in this machine's byte order.
        classes: Labels `[rows]`, -1 for none.
        ids: Sample ids `[rows]`; without them, `id_prefix` and the position make one.
        id_prefix: Start of made ids.
        facts: What `describe` answers.
        look_again: Finds the facts as they are now; None where to read the rows costs no more than to look.
    """

    rows: int
    input_shape: tuple[int, ...]
    input_dtype: np.dtype[Any]
    classes: Lazy[NDArray[np.int64]] | None = None
    ids: Lazy[Sequence[str]] | None = None
    id_prefix: str = ""
    facts: Mapping[str, Any]
    look_again: Callable[[], Mapping[str, Any]] | None

    def __len__(self) -> int:
        """Rows, readable or not."""
        return self.rows

    def sample_ids(self, start: int, stop: int) -> Sequence[str]:
        """Stable ids of rows `start:stop`: given ones, or prefix and position (`train-images-00000042`)."""
        if self.ids is not None:
            return self.ids.get()[start:stop]
        return made_ids(self.id_prefix, start, stop)

    def labels(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Class indices of rows `start:stop`, -1 where a row has none; None without labels."""
        return None if self.classes is None else self.classes.get()[start:stop]

    def describe(self) -> dict[str, Any]:
        """Names, sizes, modification times and options as they were when the source was opened."""
        return dict(self.facts)

    def unchanged(self) -> bool:
        """Whether the files still have the sizes and modification times that they were opened with.

        False where looking is not worth its while.
        """
        try:
            return self.look_again is not None and self.look_again() == self.facts
        except TransferSetError:
            return False

    def check_positions(self, positions_B: NDArray[np.int64]) -> None:
        """Refuse positions that no row has.

        Raises:
            TransferSetError: There are some.
        """
        if len(positions_B) and not 0 <= positions_B.min() <= positions_B.max() < self.rows:
            found = f"positions {positions_B.min()} to {positions_B.max()}"
            raise TransferSetError(f"{found} asked for, expected 0 to {self.rows - 1}")


def made_ids(prefix: str, start: int, stop: int) -> list[str]:
    """`{prefix}-{position:08d}` of positions `start:stop`."""
    return [f"{prefix}-{position:08d}" for position in range(start, stop)]


def blank_not_finite(inputs_B: NDArray[Any]) -> dict[int, str]:
    """Put zeros where a row of floats has NaN or infinity; says which did."""
    if inputs_B.dtype.kind != "f" or not len(inputs_B):
        return {}
    bad_B = ~np.isfinite(inputs_B.reshape(len(inputs_B), -1)).all(axis=1)
    inputs_B[bad_B] = 0
    return dict.fromkeys(np.flatnonzero(bad_B).tolist(), NOT_FINITE)
