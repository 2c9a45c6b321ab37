"""Whether a student's rows are what the teachers saw: looked at once a row, by whichever process reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.student.loading.dataset_rows import ReadRows, as_hashes
from softcask.pipeline.student.loading.joining import refuse_other_content

if TYPE_CHECKING:
    from softcask.pipeline.targets.soft_targets import LogitSource


class Recognition:
    """Which rows of a store are recognised. Picklable; safe to share between threads and processes."""

    def __init__(self, store: LogitSource) -> None:
        """None is yet."""
        self._store = store
        self._known_S = torch.zeros(len(store.rows), dtype=torch.bool)

    def share(self) -> None:
        """Tell worker processes what is recognised already, and be told by them."""
        self._known_S.share_memory_()  # type: ignore[no-untyped-call]

    def look(self, read: ReadRows, rows_B: NDArray[np.int64]) -> None:
        """Look at rows that were read, by their number in the store, unless that was done before.

        Raises:
            MisalignedRows: One's content is not what the teachers saw.
        """
        known_S = self._known_S.numpy()
        if read.hashes is not None and not known_S[rows_B].all():
            refuse_other_content(self._store, rows_B, as_hashes(read.hashes()), "a batch")
            known_S[rows_B] = True
