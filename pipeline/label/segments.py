"""The segments of a store as a labeller knows them."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.plan import Task
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import read_contents
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.views.segments import SegmentRows
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import SegmentManifest
from softcask.storage_schemas.tables import content_hashes_of


class Segments:
    """The segments' manifests and rows, read from the store when first asked for, by any thread."""

    def __init__(self, objects: StoreObjects) -> None:
        """Read nothing yet."""
        self._objects = objects
        self._tables: dict[str, tuple[SegmentManifest, pa.Table, NDArray[np.void]]] = {}
        self._lock = threading.Lock()

    def all(self) -> list[tuple[SegmentManifest, pa.Table]]:
        """Every segment with its table of rows, in order."""
        segments = read_contents(self._objects).segments
        return [self._entry(segment.segment)[:2] for segment in segments]

    def manifest(self, segment: str) -> SegmentManifest:
        """A segment's manifest."""
        return self._entry(segment)[0]

    def hashes(self, segment: str) -> NDArray[np.void]:
        """Content hashes of a segment's rows."""
        return self._entry(segment)[2]

    def rows(self, segment: str) -> SegmentRows:
        """A segment's rows, as views are made of them."""
        return SegmentRows.of(self._entry(segment)[1])

    def unit_rows(self, task: Task) -> UnitRows:
        """The rows of a task's units."""
        manifest, table, _ = self._entry(task.segment)
        return UnitRows.of(manifest, table, task.view, task.index)

    def _entry(self, segment: str) -> tuple[SegmentManifest, pa.Table, NDArray[np.void]]:
        with self._lock:
            if segment not in self._tables:
                key = keys.segment_manifest(segment)
                manifest = SegmentManifest.from_bytes(self._objects.read(key), key)
                table = read_rows(self._objects, manifest)
                self._tables[segment] = manifest, table, content_hashes_of(table)
            return self._tables[segment]
