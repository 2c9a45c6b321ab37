"""Test errors: labelled rows whose largest logit is not their label's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.student.joining import check_labels
from softcask.pipeline.student.prefetch import prefetched
from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.storage_schemas.errors import TransferSetError

_ROWS = 1000
_PREFETCHED = 2


class Evaluation:
    """A labelled transfer set to count errors on.

    Attributes:
        positions_N: Its labelled rows.
        labels_N: Their class indices.
    """

    def __init__(self, rows: TransferSet, num_classes: int) -> None:
        """Find the labelled rows.

        Raises:
            TransferSetError: No row has a label, or one is out of range.
        """
        labels = rows.labels(0, len(rows))
        if labels is None or not (labels >= 0).any():
            raise TransferSetError(
                "the evaluation's transfer set has no labels; name them, or leave evaluation out"
            )
        check_labels(labels, num_classes, rows.sample_ids(0, len(rows)))
        self.positions_N = np.flatnonzero(labels >= 0)
        self.labels_N = labels[self.positions_N]
        self._rows = rows

    def __len__(self) -> int:
        """Labelled rows."""
        return len(self.positions_N)

    def errors(self, logits_of: Callable[[torch.Tensor], torch.Tensor]) -> int:
        """How many labelled rows are not recognised.

        Args:
            logits_of: From a batch as the transfer set keeps it to logits `[B, C]`.

        Raises:
            TransferSetError: A row cannot be read.
        """
        starts = range(0, len(self), _ROWS)
        picks = [slice(start, start + _ROWS) for start in starts]
        batches = prefetched(lambda pick: self._read(self.positions_N[pick]), picks, _PREFETCHED)
        wrong = 0
        for pick, batch in zip(picks, batches, strict=True):
            predicted = logits_of(to_tensor(batch.inputs_B)).argmax(-1).cpu().numpy()
            wrong += int((predicted != self.labels_N[pick]).sum())
        return wrong

    def _read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        batch = self._rows.read(positions_B)
        for at, reason in batch.problems.items():
            position = int(positions_B[at])
            name = self._rows.sample_ids(position, position + 1)[0]
            raise TransferSetError(f"row {name} of the evaluation's transfer set cannot be read: {reason}")
        return batch
