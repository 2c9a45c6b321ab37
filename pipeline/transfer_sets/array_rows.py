"""The transfer set behind every source whose rows are an array: reads by position, ids, labels, bad rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import RowBatch
from softcask.storage_schemas.errors import TransferSetError

T = TypeVar("T")

NOT_FINITE = "input holds NaN or infinity"


class Lazy(Generic[T]):
    """A value made when it is first asked for, by one thread only, and left behind when pickled."""

    __slots__ = ("_lock", "_make", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = Lock()
        self._value: T | None = None

    def get(self) -> T:
        """The value, made now if it was not yet."""
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the way to make the value, never as the value."""
        return Lazy, (self._make,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRows:
    """Rows along the first axis of an array.

    Attributes:
        rows: How many.
        input_shape: Shape of one row.
        input_dtype: Element type that `read` gives, in this machine's byte order.
        inputs: `[rows, *input_shape]` of the same type in any byte order.
        classes: Labels `[rows]`, -1 for none.
        ids: Sample ids `[rows]`; without them, `id_prefix` and the position make one.
        id_prefix: Start of made ids.
        facts: What `describe` answers.
        look_again: Finds the facts as they are now.
    """

    rows: int
    input_shape: tuple[int, ...]
    input_dtype: np.dtype[Any]
    inputs: Lazy[NDArray[Any]]
    classes: Lazy[NDArray[np.int64]] | None = None
    ids: Lazy[Sequence[str]] | None = None
    id_prefix: str = ""
    facts: Mapping[str, Any]
    look_again: Callable[[], Mapping[str, Any]]

    def __len__(self) -> int:
        """Rows, readable or not."""
        return self.rows

    def sample_ids(self, start: int, stop: int) -> Sequence[str]:
        """Stable ids of rows `start:stop`: given ones, or prefix and position (`train-images-00000042`)."""
        if self.ids is not None:
            return self.ids.get()[start:stop]
        return [f"{self.id_prefix}-{position:08d}" for position in range(start, stop)]

    def labels(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Class indices of rows `start:stop`, -1 where a row has none; None without labels."""
        return None if self.classes is None else self.classes.get()[start:stop]

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order; a float row with NaN or infinity is a problem.

        Raises:
            TransferSetError: A position outside the set, or a file that fails.
        """
        if len(positions_B) and not 0 <= positions_B.min() <= positions_B.max() < self.rows:
            found = f"positions {positions_B.min()} to {positions_B.max()}"
            raise TransferSetError(f"{found} asked for, expected 0 to {self.rows - 1}")
        inputs_B = self.inputs.get()[positions_B].astype(self.input_dtype, order="C", copy=False)
        return RowBatch(inputs_B=inputs_B, problems=_blank_not_finite(inputs_B))

    def describe(self) -> dict[str, Any]:
        """Names, sizes, modification times and options as they were when the source was opened."""
        return dict(self.facts)

    def unchanged(self) -> bool:
        """Whether the files still have the sizes and modification times that they were opened with."""
        try:
            return self.look_again() == self.facts
        except TransferSetError:
            return False


def checked_rows(shape: tuple[int, ...], dtype: np.dtype[Any], place: str) -> None:
    """Refuse inputs that are not rows of numbers.

    Raises:
        TransferSetError: No row axis and an input axis, an axis of length 0 in the input, or not numbers.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TransferSetError(
            f"{place}: inputs of type {dtype}, expected integers, booleans or floats up to float64"
        )
    if len(shape) < 2 or 0 in shape[1:]:
        raise TransferSetError(
            f"{place}: inputs of shape {list(shape)}, expected [rows, ...] with at least one number a row; "
            "are inputs and labels exchanged?"
        )


def checked_labels(shape: tuple[int, ...], dtype: np.dtype[Any], place: str, rows: int) -> None:
    """Refuse labels that are not one class index a row.

    Raises:
        TransferSetError: Not integers, not one axis, or another number of them than rows.
    """
    if dtype.kind not in "iu" or len(shape) != 1:
        found = f"labels of type {dtype} and shape {list(shape)}"
        raise TransferSetError(
            f"{place}: {found}, expected integers [rows]; are inputs and labels exchanged?"
        )
    if shape[0] != rows:
        raise TransferSetError(
            f"{place}: {shape[0]} labels for {rows} inputs, expected one each; check both paths"
        )


def _blank_not_finite(inputs_B: NDArray[Any]) -> dict[int, str]:
    if inputs_B.dtype.kind != "f" or not len(inputs_B):
        return {}
    bad_B = ~np.isfinite(inputs_B.reshape(len(inputs_B), -1)).all(axis=1)
    inputs_B[bad_B] = 0
    return dict.fromkeys(np.flatnonzero(bad_B).tolist(), NOT_FINITE)
