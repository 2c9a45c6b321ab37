"""Test errors: labelled rows whose largest logit is not their label's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.student.loading.joining import check_labels
from softcask.pipeline.student.loading.prefetch import prefetched
from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.storage_schemas.errors import TransferSetError

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
"""From a batch as the transfer set keeps it to logits `[B, C]`."""

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

    def errors(self, logits_of: LogitsOf) -> int:
        """How many labelled rows are not recognised.

        Raises:
            TransferSetError: A row cannot be read.
        """
        return int((self.predictions(logits_of) != self.labels_N).sum())

    def predictions(self, logits_of: LogitsOf) -> NDArray[np.int64]:
        """The class `[N]` of each labelled row's largest logit; raises as `errors` does."""
        return self._of_batches(lambda inputs_B: logits_of(to_tensor(inputs_B)).argmax(-1).cpu().numpy())

    def logits(self, logits_of: LogitsOf) -> NDArray[np.float32]:
        """Logits `[N, C]` of the labelled rows; raises as `errors` does."""
        return self._of_batches(lambda inputs_B: logits_of(to_tensor(inputs_B)).float().cpu().numpy())

    def hashes(self) -> NDArray[np.void]:
        """Content hashes `[N]` of the labelled rows, as a store has them; raises as `errors` does."""
        return self._of_batches(content_hashes)

    def _of_batches(self, of: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        picks = (self.positions_N[start : start + _ROWS] for start in range(0, len(self), _ROWS))
        batches = prefetched(self._read, picks, _PREFETCHED)
        return np.concatenate([of(batch.inputs_B) for batch in batches])

    def _read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        batch = self._rows.read(positions_B)
        for at, reason in batch.problems.items():
            position = int(positions_B[at])
            name = self._rows.sample_ids(position, position + 1)[0]
            raise TransferSetError(f"row {name} of the evaluation's transfer set cannot be read: {reason}")
        return batch
