"""Batches of inputs with their soft targets: joined, checked, shuffled, prefetched. Plain numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.student.joining import (
    Coverage,
    JoinedRows,
    Match,
    join,
    refuse_unknown_content,
    shown,
)
from softcask.pipeline.student.losses.base import Needs
from softcask.pipeline.student.pooling import PooledTargets, Pools
from softcask.pipeline.student.prefetch import prefetched
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.storage_schemas.errors import MisalignedRows, TransferSetError
from softcask.storage_schemas.tables import HASH_BYTES

CACHE_BYTES = 1 << 30
"""Default bound of the targets kept in memory; 60,000 rows of 10 classes take 2.4 MB, 1.28 million rows of
1000 classes 5.1 GB."""

_FILL_ROWS = 1 << 16
_PREFETCHED = 4

_TargetsOf = Callable[[NDArray[np.int64]], NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentBatch:
    """B rows to train on.

    Attributes:
        inputs_B: `[B, *input_shape]` as the transfer set has them.
        targets_BC: Soft targets at T, or the teachers' mean logits; None where only labels are needed.
        labels_B: Class indices, -1 where a row has none.
        positions_B: The rows' positions in the transfer set.
    """

    inputs_B: NDArray[Any]
    targets_BC: NDArray[np.float32] | None
    labels_B: NDArray[np.int64]
    positions_B: NDArray[np.int64]


class SoftTargetLoader:
    """A student's inputs joined with a store's soft targets, epoch by epoch.

    Attributes:
        rows: The rows it serves.
    """

    def __init__(
        self,
        inputs: TransferSet,
        targets: SoftTargets,
        *,
        needs: Needs = "probabilities",
        temperature: float = 1.0,
        batch_size: int = 128,
        seed: int = 0,
        coverage: Coverage = "all",
        match: Match = "content",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Join both sides; reads ids and labels, no inputs and no logits.

        Args:
            inputs: The student's transfer set.
            targets: Teachers of an open store, combined.
            needs: What comes as `targets_BC`.
            temperature: T of soft targets.
            batch_size: Rows a batch; the last one of an epoch may have fewer.
            seed: Decides, with the epoch's number, the order of rows.
            coverage: `all` or `intersection`, see `join`.
            match: `content`, or `id` to allow rows whose content the store does not know.
            cache_bytes: Targets of all rows are combined once and kept if they take no more than this.
                Otherwise they are combined and kept a pool of units at a time, of as many as this holds, at
                least one; see `epoch`. It decides the order of rows then, with seed and epoch.

        Raises:
            MisalignedRows: The sides do not match, see `join`.
            TransferSetError: Ids that repeat, labels out of range, or none where nothing else is needed.
            ConfigError: T is not finite or not above 0.
            StoreError: T is not among those that the logits were kept for; or logits are needed of a teacher
                that has absent classes.
        """
        if needs == "probabilities":
            targets.check_temperature(temperature)
        elif needs == "logits":
            targets.check_logits()
        self.rows: JoinedRows = join(inputs, targets, coverage)
        if match == "content":
            refuse_unknown_content(targets.store, self.rows)
        self._inputs = inputs
        self._targets = targets
        self._needs = needs
        self._temperature = temperature
        self._batch_size = batch_size
        self._seed = seed
        self._pools: Pools | None = None
        if needs != "labels" and len(self.rows) * (row_bytes := targets.num_classes * 4) > cache_bytes:
            self._pools = Pools(targets.store, self.rows.rows_N, row_bytes=row_bytes, cache_bytes=cache_bytes)
        self._kept: NDArray[np.float32] | None = None
        self._recognised = np.zeros(len(self.rows), dtype=bool)
        if needs == "labels" and not (self.rows.labels_N >= 0).any():
            raise TransferSetError("no row has a label, and the loss learns from labels alone")

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.rows) // self._batch_size)

    def epoch(self, number: int) -> Iterator[StudentBatch]:
        """All rows once, in an order that (seed, number) alone decides, whatever epochs came before.

        Any order of all rows is equally likely where their targets fit into memory. Where they do not, units
        of the store are put into pools at random, and rows are mixed within a pool, so that each unit is
        fetched once. Rows that are sorted by class should then be shuffled before they are labelled.

        Raises:
            MisalignedRows: An input's content is not what the teachers saw; checked when a row first comes.
            TransferSetError: A row cannot be read.
        """
        random = np.random.default_rng(np.random.SeedSequence((self._seed, number)))
        if self._pools is None:
            order, targets_of = random.permutation(len(self.rows)), self._targets_of
        else:
            order, targets_of = self._pools.order(random), PooledTargets(self._pools, self._combined).of
        starts = range(0, len(order), self._batch_size)
        picks = (order[start : start + self._batch_size] for start in starts)
        return prefetched(lambda picked_B: self._batch(picked_B, targets_of), picks, _PREFETCHED)

    def _batch(self, picked_B: NDArray[np.int64], targets_of: _TargetsOf) -> StudentBatch:
        positions_B = self.rows.positions_N[picked_B]
        return StudentBatch(
            inputs_B=self._read(picked_B, positions_B),
            targets_BC=targets_of(picked_B),
            labels_B=self.rows.labels_N[picked_B],
            positions_B=positions_B,
        )

    def _read(self, picked_B: NDArray[np.int64], positions_B: NDArray[np.int64]) -> NDArray[Any]:
        batch = self._inputs.read(positions_B)
        if batch.problems:
            at, reason = next(iter(batch.problems.items()))
            raise TransferSetError(
                f"{len(batch.problems)} rows that the teachers labelled cannot be read here; the first is "
                f"{self._name(positions_B[at])}: {reason}"
            )
        if not self._recognised[picked_B].all():
            self._recognise(picked_B, positions_B, batch.inputs_B)
        return batch.inputs_B

    def _recognise(
        self, picked_B: NDArray[np.int64], positions_B: NDArray[np.int64], inputs_B: NDArray[Any]
    ) -> None:
        store = self._targets.store
        stored_B = store.rows.content_hashes[self.rows.rows_N[picked_B]]
        differing = (content_hashes(inputs_B) != stored_B) & (stored_B != np.void(bytes(HASH_BYTES)))
        if differing.any():
            names = [self._name(position) for position in positions_B[differing]]
            raise MisalignedRows(
                f"{len(names)} of the {len(picked_B)} rows of a batch have other content here than the "
                f"teachers saw ({shown(names)}), though {store.uri} has their ids. Point the student at the "
                "very inputs that the store was made from: same files, same order, same dtype"
            )
        self._recognised[picked_B] = True

    def _name(self, position: int) -> str:
        return self._inputs.sample_ids(position, position + 1)[0]

    def _targets_of(self, picked_B: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if self._needs == "labels":
            return None
        if self._kept is None:
            starts = range(0, len(self.rows), _FILL_ROWS)
            parts = [
                self._combined(np.arange(len(self.rows))[start : start + _FILL_ROWS]) for start in starts
            ]
            self._kept = np.concatenate(parts)
        return self._kept[picked_B]

    def _combined(self, picked_B: NDArray[np.int64]) -> NDArray[np.float32]:
        rows_B = self.rows.rows_N[picked_B]
        if self._needs == "logits":
            return self._targets.logits(rows_B)
        return self._targets.probabilities(rows_B, self._temperature)
