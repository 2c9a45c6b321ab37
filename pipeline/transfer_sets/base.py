"""What a transfer set is: rows that teachers label, by position, the same bytes every time.

A source knows how to find and read rows; it knows nothing of teachers, units or stores. Its identity is
settled once, by `index_rows` (see `indexing.py`), and kept in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.parts import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Rows read together.

    Attributes:
        inputs_B: `[B, *input_shape]` in the source's dtype; a row that could not be read is zeros. Text is of
            `StringDType` (see `text.py`), and an unreadable row of it "".
        problems: Index within the batch -> why that row could not be read.
    """

    inputs_B: NDArray[Any]
    problems: Mapping[int, str] = field(default_factory=dict)


@runtime_checkable
class TransferSet(Protocol):
    """Random access to the rows of one source: deterministic, picklable, read by several threads at once."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Element type of what `read` gives, in this machine's byte order; `TEXT` where rows are text."""

    def __len__(self) -> int:
        """Rows, readable or not."""

    def sample_ids(self, start: int, stop: int) -> Sequence[str]:
        """Stable ids of rows `start:stop`; the same row has the same id wherever and whenever it is read."""

    def labels(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Class indices `[stop - start]` of rows `start:stop`, -1 where a row has none; None if none has."""

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order.

        Raises:
            TransferSetError: The source itself failed; a single bad row is a `problem`, not an error.
        """

    def describe(self) -> dict[str, Any]:
        """JSON-able facts that change when the source changes, found without reading rows.

        `kind`; `files`, if it reads any: role -> `name` (never a whole path: a store must not tell where its
        maker's files lay), `bytes`, modification time; and the options that matter. Equal descriptions mean
        that rows need not be indexed again.
        """

    def unchanged(self) -> bool:
        """Whether the source still is what `describe` says; False where only reading could tell."""


class SourceOptions(Options):
    """Base of a source's section `[transfer_set]`.

    Attributes:
        kind: Which source.
        max_quarantined: Share of unreadable rows, 0 to 1, above which the run stops.
    """

    kind: str
    max_quarantined: float = Field(default=0.0, ge=0, le=1)

    def open(self) -> TransferSet:
        """Open the source; cheap, reads no more than headers.

        Raises:
            TransferSetError: A file is missing, truncated or of another format.
        """
        raise NotImplementedError


__all__ = ["RowBatch", "SourceOptions", "TransferSet"]
