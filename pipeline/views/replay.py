"""What a teacher saw of a row, seen again by a student: the same crop, flip and partner.

The store says what its views are, and nothing that it names is imported: steps that call a user's code must
stand in the student's own file, too, where they are held against what the store has pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.reading.reader import Store
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.options import AugmentationOptions
from softcask.pipeline.views.pinned import differing_fields
from softcask.pipeline.views.probing import check_probe
from softcask.pipeline.views.segments import SegmentRows, ViewedRows, partners_of, view_rows
from softcask.storage_schemas.errors import ManifestMismatch, MisalignedRows, StoreError

Inputs = Callable[[NDArray[np.int64]], NDArray[Any]]
"""A student's own inputs `[B, *row]` of rows by their number in the store."""


class Replay:
    """Views of a store's rows, for one student. Picklable; used by one thread at a time."""

    def __init__(
        self,
        store: Store,
        views: Sequence[int],
        *,
        inputs: Inputs,
        rows_N: NDArray[np.int64],
        augmentation: AugmentationOptions | None = None,
    ) -> None:
        """Find out what the views do; no input is read yet.

        Args:
            store: Where they are pinned.
            views: Their numbers; 0 is the rows as they are.
            inputs: Reads the student's inputs.
            rows_N: Numbers in the store of all rows that the student has inputs of.
            augmentation: The section `[views]` of the student's file; None: what the store says.

        Raises:
            ManifestMismatch: The section describes a view otherwise than it is pinned; lists the fields.
            StoreError: The store has no such view, or it takes code that only a section `[views]` can name.
        """
        self._store, self._inputs = store, inputs
        self._views = {view: _views(store, view, augmentation) for view in views if view}
        self._has_N = np.zeros(len(store.rows), dtype=np.bool_)
        self._has_N[rows_N] = True
        self._segments: dict[int, SegmentRows] = {}
        self._probed: set[int] = set()

    def mixes(self, view: int) -> bool:
        """Whether a view mixes rows with partners."""
        return view in self._views and self._views[view].mixes

    def read(
        self, rows_B: NDArray[np.int64], view: int, *, inputs_B: NDArray[Any] | None = None
    ) -> ViewedRows:
        """Rows as their teachers saw them.

        Args:
            rows_B: Their numbers in the store.
            view: Number of the view.
            inputs_B: Their inputs, where they are at hand.

        Returns:
            What `view_rows` gives; partners by their number in the store.

        Raises:
            ManifestMismatch: Rows do not come out in this view as they did where it was pinned.
            MisalignedRows: A row was mixed with one that the student has no input of.
            SoftcaskError: As the steps and `inputs` do.
        """
        inputs_B = self._inputs(rows_B) if inputs_B is None else inputs_B
        if view == 0:
            return ViewedRows(inputs_B=inputs_B)
        self._probe(view)
        segment_B = self._store.rows.segments[rows_B]
        found = {
            segment: self._of_segment(segment, rows_B[at], view, inputs_B[at])
            for segment, at in ((each, segment_B == each) for each in np.unique(segment_B).tolist())
        }
        if len(found) == 1:
            return next(iter(found.values()))
        return _scattered(found, segment_B)

    def _of_segment(
        self, segment: int, rows_B: NDArray[np.int64], view: int, inputs_B: NDArray[Any]
    ) -> ViewedRows:
        positions_B, read = self._store.rows.positions[rows_B], partial(self._read_at, segment, view)
        viewed = view_rows(
            self._views[view], self._rows_of(segment), positions_B, view, read, inputs_B=inputs_B
        )
        if viewed.partner_B is None:
            return viewed
        partner_B = self._numbers(segment, viewed.partner_B)
        return ViewedRows(inputs_B=viewed.inputs_B, partner_B=partner_B, share_B=viewed.share_B)

    def _read_at(self, segment: int, view: int, positions_B: NDArray[np.int64]) -> NDArray[Any]:
        """Inputs by place in a segment: partners'."""
        rows_B = self._numbers(segment, positions_B)
        missing = rows_B < 0
        missing[~missing] = ~self._has_N[rows_B[~missing]]
        if missing.any():
            names = self._rows_of(segment).ids(positions_B[missing][:1])
            raise MisalignedRows(
                f"in view {view} of {self._store.uri}, {np.count_nonzero(missing)} rows of a batch are mixed "
                "with rows that are not among this student's inputs, or were dropped from the store; the "
                f"first is {names[0]!r}. Give the student all inputs, or leave the view out (targets.views)"
            )
        return self._inputs(rows_B)

    def _numbers(self, segment: int, positions_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the store of rows by their place in a segment; -1 where one was dropped."""
        rows = self._store.rows
        first, end = np.searchsorted(rows.segments, [segment, segment + 1])
        there = rows.positions[first:end]
        at_B = np.searchsorted(there, positions_B)
        known = at_B < len(there)
        known[known] = there[at_B[known]] == positions_B[known]
        return np.where(known, first + at_B, -1)

    def _rows_of(self, segment: int) -> SegmentRows:
        if segment not in self._segments:
            self._segments[segment] = SegmentRows.of(self._store.segment_table(segment))
        return self._segments[segment]

    def _probe(self, view: int) -> None:
        """Once a view: whether probe rows that the student has come out as they did when it was pinned."""
        if view in self._probed:
            return
        if view not in self._views:
            raise StoreError(f"view {view} of {self._store.uri} was not asked for when this was opened")
        manifest, views = self._store.view(view), self._views[view]
        names = [segment.segment for segment in self._store.segments]
        if manifest.segment in names:
            segment = names.index(manifest.segment)
            rows, read = self._rows_of(segment), partial(self._read_at, segment, view)
            probe_P = np.array([probe.row for probe in manifest.probe], dtype=np.int64)
            some_P = probe_P[self._readable(segment, probe_P) & self._with_partner(segment, probe_P, view)]
            check_probe(views, manifest, rows, read, self._store.uri, some=some_P)
        self._probed.add(view)

    def _readable(self, segment: int, positions_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        rows_B = self._numbers(segment, positions_B)
        return np.where(rows_B >= 0, self._has_N[rows_B], False)

    def _with_partner(self, segment: int, positions_B: NDArray[np.int64], view: int) -> NDArray[np.bool_]:
        views, rows = self._views[view], self._rows_of(segment)
        if not views.mixes:
            return np.ones(len(positions_B), dtype=np.bool_)
        return self._readable(segment, partners_of(views, rows, positions_B, view))


def _views(store: Store, view: int, augmentation: AugmentationOptions | None) -> Views:
    manifest = store.view(view)
    if augmentation is None:
        return Views.of_manifest(manifest, store.uri)
    views = Views.of(augmentation)
    if lines := differing_fields(manifest, views):
        raise ManifestMismatch(
            f"view {view} of {store.uri} is pinned to something else than this student's section [views] "
            f"describes:\n  "
            + "\n  ".join(lines)
            + "\nSet these back, or leave the view out (targets.views)."
        )
    return views


def _scattered(found: dict[int, ViewedRows], segment_B: NDArray[np.int32]) -> ViewedRows:
    """Rows of several segments, back in their places."""

    def together(name: str) -> Any:
        values = {segment: getattr(viewed, name) for segment, viewed in found.items()}
        one = values[next(iter(values))]
        if one is None:
            return None
        whole = np.empty((len(segment_B), *one.shape[1:]), one.dtype)
        for segment, part in values.items():
            whole[segment_B == segment] = part
        return whole

    return ViewedRows(
        inputs_B=together("inputs_B"), partner_B=together("partner_B"), share_B=together("share_B")
    )
