"""The transfer set behind every source whose rows lie as encoded bytes: files, or parts of archives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import RowBatch
from softcask.pipeline.transfer_sets.decoding import Decoder, Unreadable, default_threads, in_threads, put
from softcask.pipeline.transfer_sets.identified import IdentifiedRows, blank_not_finite

_REMOTE_THREADS = 16


class Blobs(Protocol):
    """The bytes of rows, by position."""

    @property
    def remote(self) -> bool:
        """Whether reading waits for a network."""

    def runs(self, positions_B: NDArray[np.int64], most: int) -> Sequence[NDArray[np.int64]]:
        """Places in the batch that are best read together, at most so many at once."""

    def load(self, positions_R: NDArray[np.int64]) -> Iterator[bytes | Unreadable]:
        """Bytes of each row of a run, or why it has none; used by several threads at once.

        Raises:
            TransferSetError: The source itself failed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRows(IdentifiedRows):
    """Rows that are decoded as they are read, several at a time.

    Attributes:
        blobs: Their bytes.
        decoder: What makes a row of them.
        threads: How many are read and decoded at once; None for as many as suit this machine.
    """

    blobs: Blobs
    decoder: Decoder
    threads: int | None

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        """The rows at these positions, in this order; rows that fail are problems.

        Raises:
            TransferSetError: A position outside the set, or a source that fails.
        """
        self.check_positions(positions_B)
        threads = self.threads or max(default_threads(), _REMOTE_THREADS if self.blobs.remote else 1)
        inputs_B = np.zeros((len(positions_B), *self.input_shape), self.input_dtype)
        problems: dict[int, str] = {}

        def work(places: NDArray[np.int64]) -> None:
            for place, data in zip(places.tolist(), self.blobs.load(positions_B[places]), strict=True):
                try:
                    put(self._decoded(data), inputs_B, place, self.decoder.advice)
                except Unreadable as error:
                    problems[place] = str(error)

        runs = self.blobs.runs(positions_B, max(1, len(positions_B) // (4 * threads)))
        in_threads(work, runs, threads=threads)
        return RowBatch(
            inputs_B=inputs_B, problems=blank_not_finite(inputs_B) | dict(sorted(problems.items()))
        )

    def _decoded(self, data: bytes | Unreadable) -> Any:
        if isinstance(data, Unreadable):
            raise data
        return self.decoder.decode(data)


def first_cells(blobs: Blobs, rows: int, most: int = 64) -> Iterator[bytes | None]:
    """Bytes of the first rows, as far as they are asked for; None where one has none."""
    for position in range(min(rows, most)):
        for data in blobs.load(np.array([position])):
            yield None if isinstance(data, Unreadable) else data
