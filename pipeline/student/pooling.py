"""An epoch's order for rows whose targets do not fit into memory: mixed within pools of units that do.

A batch drawn from all rows of a large set would touch every unit of its store. Here each unit is fetched once
an epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.reading.order import pool_order, rows_by_unit, unit_numbers

if TYPE_CHECKING:
    from softcask.pipeline.targets.soft_targets import LogitSource


class Pools:
    """N rows by the unit that holds their targets.

    Attributes:
        units_a_pool: Units whose rows are mixed with each other, and whose targets are kept at one time.
        units_N: Each row's unit, numbered from 0.
        places_N: Each row's place among its unit's rows.
        rows: Rows of each unit, in order.
    """

    def __init__(
        self, store: LogitSource, rows_N: NDArray[np.int64], *, row_bytes: int, cache_bytes: int
    ) -> None:
        """Pools of as many units as `cache_bytes` hold the targets of, at least one.

        Args:
            store: Says which unit a row is in.
            rows_N: The rows' numbers in the store.
            row_bytes: Bytes of one row's targets.
            cache_bytes: Bytes of targets to keep.
        """
        self.rows = rows_by_unit(unit_numbers(store.rows, store.segments, rows_N))
        self.units_N: NDArray[np.int64] = np.empty(len(rows_N), dtype=np.int64)
        self.places_N: NDArray[np.int64] = np.empty(len(rows_N), dtype=np.int64)
        for unit, rows in enumerate(self.rows):
            self.units_N[rows], self.places_N[rows] = unit, np.arange(len(rows))
        self.units_a_pool = max(1, cache_bytes // (max(map(len, self.rows)) * row_bytes))

    def order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """All rows once: units at random into pools, and rows at random within each pool."""
        return pool_order(self.rows, self.units_a_pool, random)


class PooledTargets:
    """Targets of the pool that an epoch has come to. For one epoch, by one thread."""

    def __init__(self, pools: Pools, combined: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> None:
        """Keep nothing yet.

        Args:
            pools: Which unit a row is in.
            combined: Gives targets `[B, C]` of rows `[B]`.
        """
        self._pools = pools
        self._combined = combined
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def of(self, picked_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Targets `[B, C]` of rows that come in the order of `Pools.order`."""
        units_B, places_B = self._pools.units_N[picked_B], self._pools.places_N[picked_B]
        units, first = np.unique(units_B, return_index=True)
        parts, where = [], []
        # Of a batch that begins in one pool and ends in the next, the units that are kept come first.
        for unit in units[np.argsort(first)].tolist():
            where.append(np.flatnonzero(units_B == unit))
            parts.append(self._unit(unit)[places_B[where[-1]]])
        gathered_BC = np.concatenate(parts)
        targets_BC = np.empty_like(gathered_BC)
        targets_BC[np.concatenate(where)] = gathered_BC
        return targets_BC

    def _unit(self, unit: int) -> NDArray[np.float32]:
        if unit in self._kept:
            self._kept.move_to_end(unit)
            return self._kept[unit]
        while len(self._kept) >= self._pools.units_a_pool:
            self._kept.popitem(last=False)
        self._kept[unit] = self._combined(self._pools.rows[unit])
        return self._kept[unit]
