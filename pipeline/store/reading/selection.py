"""Rows that are asked for, by the segments and units that hold them: worked out once for all teachers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Rows of one unit, or of one segment, among B that are asked for.

    Attributes:
        places: Their places in it; a slice where they follow each other.
        at: Which of the B rows they are; a slice where they follow each other.
    """

    places: slice | NDArray[np.int64]
    at: slice | NDArray[np.int64]


def by_segment(rows: Rows, rows_B: NDArray[np.int64]) -> list[tuple[int, Run]]:
    """(number of the segment, run) of rows `[B]` by number, in any order, each known to be there."""
    if not len(rows_B):
        return []
    first, last = int(rows_B[0]), int(rows_B[-1])
    if last - first == len(rows_B) - 1 and (last == first or bool((np.diff(rows_B) == 1).all())):
        segment, start = int(rows.segments[first]), int(rows.positions[first])
        # Numbers follow each other; so do places, unless a segment ends or a row is missing between them.
        if int(rows.segments[last]) == segment and int(rows.positions[last]) - start == last - first:
            places = slice(start, start + len(rows_B))
            return [(segment, Run(places=places, at=slice(0, len(rows_B))))]
    return _grouped(rows.segments[rows_B], rows.positions[rows_B])


def by_unit(run: Run, unit_rows: int) -> list[tuple[int, Run]]:
    """(place of the unit in the segment, run) of a run of a segment."""
    if isinstance(run.places, slice) and isinstance(run.at, slice):
        return _consecutive(run.places.start, run.places.stop, run.at.start, unit_rows)
    at_B = _numbers(run.at)
    index_B, place_B = np.divmod(_numbers(run.places), unit_rows)
    return [(index, Run(places=each.places, at=at_B[each.at])) for index, each in _grouped(index_B, place_B)]


def _numbers(chosen: slice | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(chosen.start, chosen.stop) if isinstance(chosen, slice) else chosen


def _consecutive(start: int, stop: int, at: int, unit_rows: int) -> list[tuple[int, Run]]:
    runs = []
    for index in range(start // unit_rows, -(-stop // unit_rows)):
        first, end = max(start, index * unit_rows), min(stop, (index + 1) * unit_rows)
        places = slice(first - index * unit_rows, end - index * unit_rows)
        runs.append((index, Run(places=places, at=slice(at + first - start, at + end - start))))
    return runs


def _grouped(group_B: NDArray[np.integer], place_B: NDArray[np.int64]) -> list[tuple[int, Run]]:
    if bool((group_B == group_B[0]).all()):
        return [(int(group_B[0]), Run(places=place_B, at=slice(0, len(place_B))))]
    order_B = np.argsort(group_B, kind="stable")
    sorted_B = group_B[order_B]
    bounds = [0, *(np.flatnonzero(np.diff(sorted_B)) + 1).tolist(), len(group_B)]
    return [
        (int(sorted_B[first]), Run(places=place_B[order_B[first:end]], at=order_B[first:end]))
        for first, end in itertools.pairwise(bounds)
    ]
