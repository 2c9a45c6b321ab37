"""The order of an epoch, and who takes which rows of it: pure functions of numbers.

There is one order of all rows for a seed and an epoch. Batches are cut from it by how many rows were consumed
before, so that neither the number of processes nor that of their workers is part of it: a training that goes
on with others sees the rows that are left, each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.reading.order import pool_order


class EpochOrder(Protocol):
    """In which order rows come, by seed and epoch."""

    def __len__(self) -> int:
        """Rows an epoch."""

    def of(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Numbers of an epoch's rows."""

    def describe(self) -> dict[str, Any]:
        """What it depends on besides rows, seed and epoch; JSON-able."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrder:
    """All rows once an epoch, shuffled: the whole set, or within windows of it.

    Attributes:
        rows: Rows.
        units: Rows of each unit of the store, where rows are mixed within windows; None mixes all.
        units_a_window: Units whose rows are mixed with each other.
    """

    rows: int
    units: Sequence[NDArray[np.int64]] | None = None
    units_a_window: int = 1

    def __len__(self) -> int:
        """Rows an epoch: all."""
        return self.rows

    def describe(self) -> dict[str, Any]:
        """See `EpochOrder`."""
        return {"units_a_window": None if self.units is None else self.units_a_window}

    def of(self, seed: int, epoch: int, *more: int) -> NDArray[np.int64]:
        """All rows once; `more` tells orders of one seed and epoch apart."""
        random = np.random.default_rng(np.random.SeedSequence((seed, epoch, *more)))
        if self.units is None:
            return random.permutation(self.rows)
        return pool_order(self.units, self.units_a_window, random)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedOrder:
    """Rows of several orders, spread evenly: any stretch of it has each one's share, within a row or two.

    Each one's rows come in turns of its own: once all of its rows have come, it begins anew in another order,
    in whatever epoch of the mixture that is.

    Attributes:
        orders: What is mixed; rows of the second are numbered behind those of the first, and so on.
        takes: Rows of each an epoch.
    """

    orders: Sequence[RowOrder]
    takes: Sequence[int]

    def __len__(self) -> int:
        """Rows an epoch."""
        return sum(self.takes)

    def of(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Rows of an epoch."""
        first = np.cumsum([0, *map(len, self.orders)])
        rows = [first[number] + self._turns(number, seed, epoch) for number in range(len(self.orders))]
        when = [(np.arange(take) + 0.5) / take for take in self.takes]
        mixed: NDArray[np.int64] = np.concatenate(rows)[np.argsort(np.concatenate(when), kind="stable")]
        return mixed

    def describe(self) -> dict[str, Any]:
        """See `EpochOrder`."""
        parts = zip(self.orders, self.takes, strict=True)
        return {str(number): {"rows": take, **order.describe()} for number, (order, take) in enumerate(parts)}

    def _turns(self, number: int, seed: int, epoch: int) -> NDArray[np.int64]:
        order, take = self.orders[number], self.takes[number]
        start, stop, rows = epoch * take, (epoch + 1) * take, len(order)
        turns = range(start // rows, -(-stop // rows))
        return np.concatenate(
            [order.of(seed, turn, number)[max(0, start - turn * rows) : stop - turn * rows] for turn in turns]
        )


def shares(rows: int, weights: Sequence[float]) -> tuple[int, ...]:
    """So many rows divided in proportion to weights, to whole rows by largest remainders."""
    exact = [rows * weight / math.fsum(weights) for weight in weights]
    whole = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda number: (whole[number] - exact[number], number))
    for number in by_rest[: rows - sum(whole)]:
        whole[number] += 1
    return tuple(whole)


def global_batches(rows: int, done: int, batch_size: int, world_size: int) -> Iterator[tuple[int, int]]:
    """Where the batches of all processes together begin and end in what is left of an epoch's order.

    Each has `batch_size * world_size` rows. The last has what is left; if that is less than a row a process,
    the batch before it takes it too.

    Args:
        rows: Rows of the epoch.
        done: Rows consumed before.
        batch_size: Rows a batch and process.
        world_size: Processes.
    """
    size = batch_size * world_size
    for _ in range(steps(rows - done, batch_size, world_size) - 1):
        yield done, done + size
        done += size
    if done < rows:
        yield done, rows


def steps(rows: int, batch_size: int, world_size: int) -> int:
    """Batches that so many rows make; see `global_batches`."""
    full, rest = divmod(rows, batch_size * world_size)
    return full + (rest >= world_size or (rest > 0 and not full))


def share_of(start: int, stop: int, rank: int, world_size: int) -> tuple[int, int]:
    """What one process takes of a batch of all: shares follow each other, and differ by at most one row."""
    rows = stop - start
    return start + rows * rank // world_size, start + rows * (rank + 1) // world_size
