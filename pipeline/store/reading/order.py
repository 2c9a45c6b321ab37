"""Orders in which all rows of a store come once: as they lie, or mixed within pools of units.

A batch drawn from all rows of a large set would touch every unit of its store. Mixed within pools, each unit
is unpacked or fetched once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.rows import Rows
from softcask.storage_schemas.manifest import SegmentManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B rows of M teachers, as stored.

    Attributes:
        rows_B: Their numbers in the store.
        columns: `[M, B, *row_shape]` by name.
    """

    rows_B: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]


def batches(
    rows: Rows,
    segments: Sequence[SegmentManifest],
    read: Callable[[NDArray[np.int64]], Mapping[str, NDArray[Any]]],
    *,
    batch_rows: int,
    shuffle: tuple[int, int] | None,
    pool_rows: int,
) -> Iterator[Batch]:
    """All rows once; see `Store.batches`."""
    if shuffle is None:
        order_N = np.arange(len(rows))
    else:
        units = rows_by_unit(unit_numbers(rows, segments, np.arange(len(rows))))
        most = max(map(len, units), default=1)
        order_N = pool_order(units, max(1, pool_rows // most), np.random.default_rng(shuffle))
    for start in range(0, len(order_N), batch_rows):
        rows_B = order_N[start : start + batch_rows]
        yield Batch(rows_B=rows_B, columns=read(rows_B))


def unit_numbers(
    rows: Rows, segments: Sequence[SegmentManifest], rows_B: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number `[B]` of the unit that holds each row, units counted over all segments."""
    unit_rows = np.array([segment.unit_rows for segment in segments], dtype=np.int64)
    first = np.cumsum([0, *(segment.units for segment in segments)])
    segment_B = rows.segments[rows_B]
    numbers_B: NDArray[np.int64] = first[segment_B] + rows.positions[rows_B] // unit_rows[segment_B]
    return numbers_B


def rows_by_unit(units_N: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of each unit that has any, in order."""
    order_N = np.argsort(units_N, kind="stable")
    return np.split(order_N, np.flatnonzero(np.diff(units_N[order_N])) + 1) if len(units_N) else []


def pool_order(
    units: Sequence[NDArray[np.int64]], units_a_pool: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """All rows once: units at random into pools, and rows at random within each pool.

    Args:
        units: Rows of each unit.
        units_a_pool: Units whose rows are mixed with each other.
        random: Decides.
    """
    shuffled = random.permutation(len(units)).tolist()
    pools = (shuffled[first : first + units_a_pool] for first in range(0, len(shuffled), units_a_pool))
    mixed = [random.permutation(np.concatenate([units[unit] for unit in pool])) for pool in pools]
    return np.concatenate([np.empty(0, dtype=np.int64), *mixed])
