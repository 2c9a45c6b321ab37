"""The reader: batches of a unit's rows, the very ones that were indexed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.label.segments import Segments
from softcask.pipeline.label.work import Batch, Work
from softcask.pipeline.pinning import publish_metadata
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.receipts import read_commit
from softcask.pipeline.store.writing.prepare import known_again
from softcask.pipeline.teachers.fitting import FittedTeacher
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.probing import check_probe
from softcask.pipeline.views.segments import SegmentRows, reader_of, view_rows
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreError, TransferSetError
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest
from softcask.storage_schemas.views import ViewManifest

_READ_BYTES = 4 << 20
"""Read together: batches of small rows cost more in calls and in waking threads than in copying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReader:
    """Reads for one labeller, in a thread of its own.

    Attributes:
        objects: The store.
        source: Where rows come from.
        segments: The store's segments.
        manifests: By teacher.
        teachers: By name; of those that stage their batches, this is the thread that does it.
        closed: Set when what is not yet computed is to be given up.
        views: What views of the rows are; None where there are none.
    """

    objects: StoreObjects
    source: TransferSet
    segments: Segments
    manifests: Mapping[str, TeacherManifest]
    teachers: Mapping[str, FittedTeacher]
    closed: threading.Event
    views: Views | None = None
    _known: dict[str, bool] = field(default_factory=dict)
    _rows: dict[str, SegmentRows] = field(default_factory=dict)
    _begun: set[tuple[str, int]] = field(default_factory=set)

    def read(self, work: Work) -> None:
        """Put the unit's batches into its queue, then None; or what went wrong."""
        try:
            self._read(work)
        except BaseException as error:  # handed to the thread that waits, which raises it
            work.batches.put(error)
        else:
            work.batches.put(None)

    def _read(self, work: Work) -> None:
        # Another driver may have committed a unit since this one planned it.
        found = {
            name: read_commit(self.objects, self.manifests[name], work.task.unit)
            for name in work.task.teachers
        }
        work.teachers = tuple(name for name, commit in found.items() if commit is None)
        work.standing = tuple(commit for commit in found.values() if commit is not None)
        if not work.teachers:
            return
        views = self._begun_views(work)
        work.unchanged = self.source.unchanged() and self._is_known(work.segment)
        positions_R = work.task.start + np.flatnonzero(work.rows.readable)
        first = 0
        while first < len(positions_R):
            refuse_if_closed(self.closed, work)
            started = time.perf_counter()
            # Asked for each time: where it is found by trial, the forward thread may know more by now.
            rows = max(self.teachers[name].rows for name in work.teachers)
            some_B = positions_R[first : first + self._rows_at_once(rows)]
            inputs_B = self._read_batch(work, some_B)
            if views is not None:
                inputs_B = self._viewed(work, views, some_B, inputs_B)
            batches = [
                self._staged(work, inputs_B[start : start + rows]) for start in range(0, len(inputs_B), rows)
            ]
            work.seconds["read"] += time.perf_counter() - started
            work.batches.put(batches)
            first += len(inputs_B)
        if work.unchanged and not self.source.unchanged():
            raise TransferSetError(
                f"the transfer set changed while unit {work.task.unit} was read. Restore the data, or "
                "label the new data into another store; what is committed is safe."
            )

    def _rows_at_once(self, rows: int) -> int:
        """Rows of as many batches as are read together."""
        row_bytes = math.prod(self.source.input_shape) * self.source.input_dtype.itemsize
        return rows * max(1, _READ_BYTES // (rows * max(1, row_bytes)))

    def _staged(self, work: Work, inputs_B: NDArray[Any]) -> Batch:
        staged = {name: self.teachers[name].stage(inputs_B) for name in work.teachers}
        return Batch(len(inputs_B), staged)

    def _is_known(self, segment: SegmentManifest) -> bool:
        name = segment.segment
        if name not in self._known:
            self._known[name] = known_again(self.objects, segment, self.source.describe())
        return self._known[name]

    def _viewed(
        self, work: Work, views: Views, positions_B: NDArray[np.int64], inputs_B: NDArray[Any]
    ) -> NDArray[Any]:
        """Rows as their unit's view has them."""
        rows, read = self._rows_of(work.segment), partial(self._read_batch, work)
        return view_rows(views, rows, positions_B, work.task.view, read, inputs_B=inputs_B).inputs_B

    def _begun_views(self, work: Work) -> Views | None:
        """What is done to the rows of a unit; None where they are taken as they are.

        Before the first unit of a view and segment: its arrays stand, and rows come out as they were pinned.
        """
        place = work.segment.segment, work.task.view
        if not work.task.view:
            return None
        if self.views is None:
            raise StoreError(f"unit {work.task.unit} is of a view, and this run has no section [views]")
        if place in self._begun:
            return self.views
        for teacher in self.manifests.values():
            publish_metadata(self.objects, teacher, work.segment, work.task.view)
        key = keys.view_manifest(work.task.view)
        manifest = ViewManifest.from_bytes(self.objects.read(key), key)
        segment = self.segments.manifest(manifest.segment)
        read = reader_of(self.source, segment)
        check_probe(self.views, manifest, self._rows_of(segment), read, self.objects.uri)
        self._begun.add(place)
        return self.views

    def _rows_of(self, segment: SegmentManifest) -> SegmentRows:
        if segment.segment not in self._rows:
            self._rows[segment.segment] = self.segments.rows(segment.segment)
        return self._rows[segment.segment]

    def _read_batch(self, work: Work, positions_B: NDArray[np.int64]) -> NDArray[Any]:
        batch = self.source.read(work.segment.first + positions_B)
        if batch.problems:
            place, reason = min(batch.problems.items())
            raise TransferSetError(
                f"{self._row(work, positions_B[place])} could be read when it was indexed and cannot now: "
                f"{reason}. Restore it and run again; what is committed is safe."
            )
        # Of a source that is known to be as it was, one row a batch tells whether rows were mixed up.
        looked_at = slice(0, 1 if work.unchanged else None)
        expected_B = self.segments.hashes(work.task.segment)[positions_B[looked_at]]
        differ = np.flatnonzero(content_hashes(batch.inputs_B[looked_at]) != expected_B)
        if differ.size:
            raise TransferSetError(
                f"{self._row(work, positions_B[differ[0]])} is not what it was when it was indexed "
                f"({differ.size} of {len(positions_B)} rows of this batch changed). "
                "Restore the data, or label the new data into another store."
            )
        return batch.inputs_B

    def _row(self, work: Work, position: int) -> str:
        (name,) = self._rows_of(work.segment).ids(np.array([position]))
        return f"row {position} ({name!r}) of unit {work.task.unit}"


def refuse_if_closed(closed: threading.Event, work: Work) -> None:
    """End a unit that is not computed yet when its labeller is closed.

    Raises:
        CancelledError: It is closed.
    """
    if closed.is_set():
        raise CancelledError(f"unit {work.task.unit} was given up: its labeller was closed")
