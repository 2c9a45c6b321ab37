"""The transfer set behind every source whose rows are an array: reads by position, bad rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import RowBatch
from softcask.pipeline.transfer_sets.identified import IdentifiedRows, blank_not_finite
from softcask.pipeline.transfer_sets.kept import Lazy
from softcask.storage_schemas.errors import TransferSetError


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRows(IdentifiedRows):
    """Rows along the first axis of an array.

    Attributes:
        inputs: `[rows, *input_shape]` of `input_dtype` in any byte order.
    """

    inputs: Lazy[NDArray[Any]]

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order; a float row with NaN or infinity is a problem.

        Raises:
            TransferSetError: A position outside the set, or a file that fails.
        """
        self.check_positions(positions_B)
        inputs_B = self.inputs.get()[positions_B].astype(self.input_dtype, order="C", copy=False)
        return RowBatch(inputs_B=inputs_B, problems=blank_not_finite(inputs_B))


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
