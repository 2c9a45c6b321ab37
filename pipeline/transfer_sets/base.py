"""What a transfer set is: rows that teachers label, by position, the same bytes every time.

A source knows how to find and read rows; it knows nothing of teachers, units or stores. Its identity is settled
once, by `index_rows` (see `indexing.py`), and kept in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.parts import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Rows read together.

    Attributes:
        inputs_B: `[B, *input_shape]` in the source's dtype; a row that could not be read is zeros.
        problems: Index within the batch -> why that row could not be read.
    """

    inputs_B: NDArray[Any]
    problems: Mapping[int, str] = field(default_factory=dict)


@runtime_checkable
class TransferSet(Protocol):
    """Random access to the rows of one source: deterministic, picklable, safe to read from several threads."""

    input_shape: tuple[int, ...]
    input_dtype: np.dtype[Any]

    def __len__(self) -> int:
        """Rows, readable or not."""

    def sample_ids(self, start: int, stop: int) -> Sequence[str]:
        """Stable ids of rows `start:stop`; the same row has the same id wherever and whenever it is read."""

    def labels(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Class indices `[stop - start]` of rows `start:stop`, -1 where a row has none; None if no row has one."""

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order.

        Raises:
            TransferSetError: The source itself failed; a single bad row is a `problem`, not an error.
        """

    def describe(self) -> dict[str, Any]:
        """JSON-able facts that change when the source changes, found without reading rows.

        Names (never whole paths: a store must not tell where its maker's files lay), sizes, modification times in
        ns, and the options that matter. Equal descriptions mean that rows need not be indexed again.
        """


class SourceOptions(Options):
    """Base of a source's section `[transfer_set]`."""

    kind: str
    max_quarantined: float = 0.0
    """Share of unreadable rows, 0 to 1, above which the run stops."""

    def open(self) -> TransferSet:
        """Open the source; cheap, reads no more than headers.

        Raises:
            TransferSetError: A file is missing, truncated or of another format.
        """
        raise NotImplementedError


__all__ = ["RowBatch", "SourceOptions", "TransferSet"]
