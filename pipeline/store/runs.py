"""Rows that are asked for, by the units that hold them: worked out once for all teachers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.rows import Rows
from softcask.storage_schemas.manifest import SegmentManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Rows of one unit among the B that are asked for.

    Attributes:
        segment: Number of the segment.
        index: Place of the unit in the segment.
        places: The rows' places in the unit; a slice where they follow each other.
        at: Which of the B rows they are; a slice where they follow each other.
    """

    segment: int
    index: int
    places: slice | NDArray[np.int64]
    at: slice | NDArray[np.int64]


def runs_of(rows: Rows, segments: Sequence[SegmentManifest], rows_B: NDArray[np.int64]) -> list[Run]:
    """The runs that give rows `[B]` by number, each within the store's, in any order."""
    if not len(rows_B):
        return []
    first, last = int(rows_B[0]), int(rows_B[-1])
    if last - first == len(rows_B) - 1 and (last == first or bool((np.diff(rows_B) == 1).all())):
        segment, start = int(rows.segments[first]), int(rows.positions[first])
        # Numbers follow each other; so do places, unless a segment ends or a row is missing between them.
        if int(rows.segments[last]) == segment and int(rows.positions[last]) - start == last - first:
            return _consecutive(segment, segments[segment].unit_rows, start, start + len(rows_B))
    return _scattered(rows, segments, rows_B)


def _consecutive(segment: int, unit_rows: int, start: int, stop: int) -> list[Run]:
    runs = []
    for index in range(start // unit_rows, -(-stop // unit_rows)):
        first, end = max(start, index * unit_rows), min(stop, (index + 1) * unit_rows)
        places = slice(first - index * unit_rows, end - index * unit_rows)
        runs.append(Run(segment=segment, index=index, places=places, at=slice(first - start, end - start)))
    return runs


def _scattered(rows: Rows, segments: Sequence[SegmentManifest], rows_B: NDArray[np.int64]) -> list[Run]:
    segment_B, position_B = rows.segments[rows_B], rows.positions[rows_B]
    unit_rows = np.array([segment.unit_rows for segment in segments], dtype=np.int64)
    index_B, place_B = np.divmod(position_B, unit_rows[0] if len(segments) == 1 else unit_rows[segment_B])
    # Units of a store number less than 2**48: one key a unit, whatever its segment.
    key_B = segment_B.astype(np.int64) << 48 | index_B
    order_B = np.argsort(key_B, kind="stable")
    sorted_B = key_B[order_B]
    bounds = [0, *(np.flatnonzero(np.diff(sorted_B)) + 1).tolist(), len(rows_B)]
    return [
        _run(int(sorted_B[first]), place_B, order_B[first:end]) for first, end in itertools.pairwise(bounds)
    ]


def _run(key: int, place_B: NDArray[np.int64], at: NDArray[np.int64]) -> Run:
    places = place_B[at]
    whole = len(at) == len(place_B)
    return Run(
        segment=key >> 48,
        index=key & (1 << 48) - 1,
        places=places,
        at=slice(0, len(at)) if whole else at,
    )
