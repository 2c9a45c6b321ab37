"""Rows of a segment in a view: partners are found by the segment's own table, and read as the rows are.

Whoever labels and whoever replays come through here, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.views.composition import Views
from softcask.storage_schemas.manifest import SegmentManifest

Read = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Rows `[B, *row]` of a segment by position, as the transfer set has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRows:
    """The rows of a segment as they were indexed; what is dropped from a store later stays among them.

    Attributes:
        sample_ids: `[n]` strings of all rows.
        readable_R: Positions of those that are not quarantined.
    """

    sample_ids: pa.ChunkedArray
    readable_R: NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> SegmentRows:
        """From the segment's table."""
        readable = pc.is_null(table["quarantine"]).to_numpy(zero_copy_only=False)
        return cls(sample_ids=table["sample_id"], readable_R=np.flatnonzero(readable))

    def ids(self, positions_B: NDArray[np.int64]) -> list[str]:
        """Ids of the rows at these positions."""
        found: list[str] = self.sample_ids.take(pa.array(positions_B)).to_pylist()
        return found


def reader_of(source: TransferSet, segment: SegmentManifest) -> Read:
    """Reads a segment's rows from the transfer set; those that are known to be readable."""
    return lambda positions_B: source.read(segment.first + positions_B).inputs_B


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedRows:
    """Rows of a segment in some view.

    Attributes:
        inputs_B: `[B, *row]`.
        partner_B: Positions of their partners; None where the view mixes no rows.
        share_B: See `Viewed`.
    """

    inputs_B: NDArray[Any]
    partner_B: NDArray[np.int64] | None = None
    share_B: NDArray[np.float32] | None = None


def partners_of(
    views: Views, segment: SegmentRows, positions_B: NDArray[np.int64], view: int
) -> NDArray[np.int64]:
    """Positions of the rows' partners in their segment."""
    rank_B = np.searchsorted(segment.readable_R, positions_B)
    partner_B = views.partners(segment.ids(positions_B), rank_B, len(segment.readable_R), view)
    return segment.readable_R[partner_B]


def view_rows(
    views: Views,
    segment: SegmentRows,
    positions_B: NDArray[np.int64],
    view: int,
    read: Read,
    *,
    inputs_B: NDArray[Any] | None = None,
) -> ViewedRows:
    """Readable rows of a segment in a view.

    Args:
        views: What views do.
        segment: The segment.
        positions_B: Which rows.
        view: Number of the view.
        read: Reads rows, partners' among them.
        inputs_B: The rows, where they are at hand.

    Raises:
        SoftcaskError: As `Views.apply` and `read` do.
    """
    inputs_B = read(positions_B) if inputs_B is None else inputs_B
    if view == 0:
        return ViewedRows(inputs_B=inputs_B)
    ids = segment.ids(positions_B)
    if not views.mixes:
        return ViewedRows(inputs_B=views.apply(inputs_B, ids, view).inputs_B)
    partner_B = partners_of(views, segment, positions_B, view)
    partners = read(partner_B), segment.ids(partner_B)
    viewed = views.apply(inputs_B, ids, view, partners=partners)
    return ViewedRows(inputs_B=viewed.inputs_B, partner_B=partner_B, share_B=viewed.share_B)
