"""Logits of all classes as a numpy array `[rows, classes]`: `.npy`, or `logits` in a `.npz`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import Source, digests
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.storage_schemas.errors import ExchangeError

NAME = "npy"
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLogits:
    """An array; see `ForeignLogits`.

    Attributes:
        path: The file.
        rows: The array, its ids and labels, as a transfer set reads them.
        files: All files by role.
    """

    path: Path
    rows: TransferSet
    files: dict[str, Path]

    @property
    def num_classes(self) -> int:
        """Length of the second axis."""
        return self.rows.input_shape[0]

    @property
    def top_k(self) -> int | None:
        """All classes are known."""
        return None

    @property
    def limits(self) -> tuple[str, ...]:
        """See `ForeignLogits`."""
        return ()

    def sample_ids(self) -> pa.Array:
        """See `ForeignLogits`."""
        return pa.array(self.rows.sample_ids(0, len(self.rows)), pa.string())

    def labels(self) -> NDArray[np.int64] | None:
        """See `ForeignLogits`."""
        return self.rows.labels(0, len(self.rows))

    def read(self, positions_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ForeignLogits`."""
        batch = self.rows.read(positions_B)
        wrong_B = (np.abs(batch.inputs_B) > _LARGEST).any(axis=1)
        wrong_B[list(batch.problems)] = True
        for row in np.flatnonzero(wrong_B)[:1].tolist():
            raise ExchangeError(
                f"{self.path}: row {positions_B[row]} holds NaN, infinity or what float32 cannot hold; "
                "expected finite logits"
            )
        return batch.inputs_B.astype(np.float32, copy=False)

    def describe(self) -> dict[str, Any]:
        """See `ForeignLogits`."""
        return {"format": NAME, "files": digests(self.files), "classes": self.num_classes}


def open_arrays(source: Source) -> ArrayLogits:
    """Open an array, with `ids` and `labels` as numpy files beside it or in the same `.npz`.

    Raises:
        TransferSetError: A file or key is missing, no numpy file, or truncated.
        ExchangeError: Not two axes, not floats, or another number of classes than asked for.
    """
    source.refuse_unused(NAME, "ids", "labels", "id_prefix")
    named = {"inputs": source.path, "ids": source.ids, "labels": source.labels}
    files = {role: path for role, path in named.items() if path is not None}
    rows = ArraysOptions(
        inputs=str(source.path),
        inputs_key="logits",
        ids=None if source.ids is None else str(source.ids),
        labels=None if source.labels is None else str(source.labels),
        id_prefix=source.id_prefix,
    ).open()
    if len(rows.input_shape) != 1 or rows.input_dtype.kind != "f" or rows.input_shape[0] < 2:
        raise ExchangeError(
            f"{source.path}: {rows.input_dtype} of shape {[len(rows), *rows.input_shape]}, expected floats "
            "[rows, classes]"
        )
    if source.classes not in (None, rows.input_shape[0]):
        raise ExchangeError(f"{source.path}: {rows.input_shape[0]} classes a row, expected {source.classes}")
    return ArrayLogits(path=source.path, rows=rows, files=files)
