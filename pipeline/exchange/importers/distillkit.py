"""DistillKit's offline logits (arcee-ai/DistillKit): a folder of Parquet files and how they were packed.

As its `sample_logits_vllm` writes them: `data_0.parquet`, ..., a row a sequence, with `compressed_logprobs`
and `bytepacked_indices`, for each position a list of bytes; beside them `compression_config.yaml`. Each
position becomes a row of the store, `data_0-000012-00034`: file, row and position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import Source, digests, existing
from softcask.pipeline.exchange.importers.distillkit_packing import Packing, read_packing
from softcask.pipeline.exchange.importers.row_groups import RowGroups, lists_of, parquet_files
from softcask.pipeline.exchange.importers.sparse import TopRows, checked
from softcask.storage_schemas.errors import ExchangeError

NAME = "distillkit"
SETTINGS = "compression_config.yaml"
SLACK = 0.3
"""How far a position's sum may be off: DistillKit fits a polynomial to the smaller log-probabilities, and its
smallest settings were seen to add a fifth."""

_VALUES, _INDICES = "compressed_logprobs", "bytepacked_indices"
_LIMITS = (
    "top-k at T=1: what lies outside is known by its sum alone",
    "log-probabilities as DistillKit's codec keeps them; where they sum to more than 1 they are scaled to 1",
    "a position is known by its file, row and place, not by its tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillKitLogits:
    """The positions of all sequences; see `ForeignLogits`.

    Attributes:
        packing: How they are packed.
        files: Files by name.
        sequences: The files' rows.
        firsts: First position of each sequence, and behind them the number of all positions.
        ids: Ids of all positions.
    """

    packing: Packing
    files: dict[str, Path]
    sequences: RowGroups
    firsts: NDArray[np.int64]
    ids: pa.Array

    @property
    def num_classes(self) -> int:
        """`d` of the settings."""
        return self.packing.d

    @property
    def top_k(self) -> int:
        """`k` of the settings."""
        return self.packing.k

    @property
    def limits(self) -> tuple[str, ...]:
        """See `ForeignLogits`."""
        return _LIMITS

    def sample_ids(self) -> pa.Array:
        """File, row and position."""
        return self.ids

    def labels(self) -> NDArray[np.int64] | None:
        """The format has none."""
        return None

    def read(self, positions_B: NDArray[np.int64]) -> TopRows:
        """See `ForeignLogits`."""
        sequence_B = np.searchsorted(self.firsts, positions_B, side="right") - 1
        sequences = np.unique(sequence_B)
        table = self.sequences.take(sequences, [_VALUES, _INDICES])
        counts = self.firsts[sequences + 1] - self.firsts[sequences]
        starts = np.cumsum(counts) - counts
        within_B = starts[np.searchsorted(sequences, sequence_B)] + positions_B - self.firsts[sequence_B]

        def place(row: int) -> str:
            sequence = int(sequence_B[row])
            return f"{self.sequences.place(sequence)}, position {positions_B[row] - self.firsts[sequence]}"

        packed, indices = (
            _matrix(table[name], width, name, lambda row: self.sequences.place(int(sequences[row])))[within_B]
            for name, width in ((_VALUES, self.packing.value_bytes), (_INDICES, self.packing.index_bytes))
        )
        # Not the order of what was packed: its approximation may rise here and there.
        rows = TopRows(classes_BK=self.packing.classes(indices), log_probs_BK=self._scaled(packed))
        return checked(rows, self.num_classes, place, slack=SLACK, monotone=False)

    def describe(self) -> dict[str, Any]:
        """See `ForeignLogits`."""
        return {"format": NAME, "files": digests(self.files), "packing": self.packing.model_dump(mode="json")}

    def _scaled(self, packed_NB: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Log-probabilities; of rows whose sum is a little above 1, as far down as makes it 1."""
        log_NK = self.packing.log_probs(packed_NB)
        with np.errstate(over="ignore", invalid="ignore"):
            sum_N = np.exp(log_NK).sum(axis=1)
            over_N = (sum_N > 1) & (sum_N <= 1 + SLACK)
        log_NK[over_N] -= np.log(sum_N[over_N])[:, None]
        return log_NK


def open_distillkit(source: Source) -> DistillKitLogits:
    """Open a folder of DistillKit's Parquet files, or one of them.

    Raises:
        ExchangeError: No such files, no settings, other columns (its older `packed_indices` among them), or
            positions that differ in number between the columns.
    """
    source.refuse_unused(NAME, "settings")
    beside = existing(source.path, "file or folder")
    beside = beside if beside.is_dir() else beside.parent
    settings = source.settings or beside / SETTINGS
    packing = read_packing(settings)
    if source.classes not in (None, packing.d):
        raise ExchangeError(f"{settings}: d = {packing.d} classes, expected {source.classes}")
    sequences = RowGroups.of(parquet_files(source.path))
    for path in sequences.paths:
        if missing := sorted({_VALUES, _INDICES} - set(sequences.schema(path).names)):
            raise ExchangeError(
                f"{path}: no column {missing[0]}; found {', '.join(sequences.schema(path).names)}. Read are "
                f"{_VALUES} and {_INDICES}; DistillKit's older packed_indices, exact_values and coeffs hold "
                "centred logits without their sum, from which no probability can be told"
            )
    ids, firsts = _positions(sequences)
    files = {path.name: path for path in sequences.paths} | {settings.name: settings}
    return DistillKitLogits(packing=packing, files=files, sequences=sequences, firsts=firsts, ids=ids)


def _positions(sequences: RowGroups) -> tuple[pa.Array, NDArray[np.int64]]:
    """Ids of all positions, and the first position of each sequence."""
    counts, ids = [], []
    for group, (file, _) in enumerate(sequences.groups):
        start = int(sequences.starts[group])
        values, indices = (
            _lengths(sequences.read(group, [name])[name], f"{sequences.paths[file]}: column {name}")
            for name in (_VALUES, _INDICES)
        )
        for row in np.flatnonzero(values != indices)[:1].tolist():
            raise ExchangeError(
                f"{sequences.place(start + row)} has {values[row]} {_VALUES} and {indices[row]} {_INDICES}; "
                "expected as many"
            )
        first = start - int(sequences.starts[sequences.groups.index((file, 0))])
        stem = sequences.paths[file].stem
        counts.append(values)
        ids += [
            f"{stem}-{first + row:06d}-{position:05d}"
            for row, count in enumerate(values.tolist())
            for position in range(count)
        ]
    firsts = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]).astype(np.int64))]).astype(np.int64)
    return pa.array(ids, pa.string()), firsts


def _lengths(column: pa.ChunkedArray, what: str) -> NDArray[np.int64]:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_list(array.type) or not pa.types.is_list(array.type.value_type) or array.null_count:
        raise ExchangeError(f"{what}: {array.type}, expected lists of lists of bytes")
    lengths: NDArray[np.int64] = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _matrix(column: pa.ChunkedArray, width: int, name: str, place: Callable[[int], str]) -> NDArray[np.uint8]:
    """All positions' bytes `[N, width]`; `place` tells file and row of the n-th sequence."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    ends = np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))

    def of_position(position: int) -> str:
        return place(int(np.searchsorted(ends, position, side="right")))

    lengths, flat = lists_of(pa.chunked_array([array.flatten()]), name, of_position)
    for position in np.flatnonzero(lengths != width)[:1].tolist():
        raise ExchangeError(
            f"{of_position(position)} has {lengths[position]} bytes of {name} at a position, expected "
            f"{width}; were these packed otherwise than the settings say?"
        )
    if flat.dtype.kind not in "iu" or (len(flat) and (flat.min() < 0 or flat.max() > 255)):
        raise ExchangeError(f"{place(0)} has {flat.dtype} as {name}, expected bytes")
    return flat.astype(np.uint8).reshape(len(lengths), width)
