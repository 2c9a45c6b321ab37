"""Read a store: rows, teachers, logits by row. What a student or a notebook holds in its hands.

The codec is rebuilt from the store, every object is checked against its committed checksum when it is
fetched, and decoded units stay in a bounded cache. No listing: the catalog says what there is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.store import catalog
from softcask.pipeline.store.layout import unit_objects
from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.prepare import read_rows
from softcask.pipeline.store.rows import Rows
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.base import check_claim
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import CorruptObject, IncompleteStore, StoreError, StoreNotFound
from softcask.storage_schemas.manifest import (
    Dropped,
    Generation,
    ObjectRecord,
    RootManifest,
    SegmentManifest,
    TeacherManifest,
)

if TYPE_CHECKING:
    import pandas as pd
    import zarr

CACHE_BYTES = 512 << 20
"""Decoded units that one reader keeps, by default."""

_UnitColumns = dict[str, NDArray[Any]]


class Store:
    """An open store. Safe to share between threads; picklable (the cache stays behind).

    Attributes:
        uri: Where it lies.
        class_names: Names of the classes, in the order of the logits.
        segments: Manifests of its segments, in order.
        teachers: Manifests of its teachers, by name.
        rows: Its readable rows, numbered from 0 over all segments.
        generation: Number of the sealed generation that is read; 0 where nothing is sealed.
        commits: The commits that it reads, with the schema `tables.COMMITS`.
    """

    def __init__(self, uri: str, *, allow_partial: bool = False, cache_bytes: int = CACHE_BYTES) -> None:
        """Open the store at `uri`; see `open_store`."""
        self.uri = uri
        self.objects = StoreObjects.at(uri)
        self._arguments = {"uri": uri, "allow_partial": allow_partial, "cache_bytes": cache_bytes}
        self.class_names = _read_root(self.objects).class_names
        generation = catalog.newest_generation(self.objects)
        if generation is None and not allow_partial:
            raise IncompleteStore(
                f"{uri} is not sealed: no precompute has finished on it yet. Finish it by running "
                "`softcask precompute` again, or open it with allow_partial=True."
            )
        dropped = generation.dropped if generation else Dropped()
        if allow_partial:
            contents = catalog.read_contents(self.objects).without(dropped)
        else:
            contents = _sealed(self.objects, generation)
        self.generation = generation.generation if generation else 0
        self.segments = contents.segments
        self.teachers: Mapping[str, TeacherManifest] = contents.teachers
        self.commits = catalog.read_commits(self.objects, generation) if generation else _no_commits()
        if allow_partial:
            unsealed = catalog.read_unsealed(self.objects, contents, self.commits)
            self.commits = pa.concat_tables([self.commits, unsealed])
        self._dropped_rows = catalog.read_dropped_rows(self.objects, dropped)
        rows = (read_rows(self.objects, segment) for segment in self.segments)
        self.rows = Rows.of([catalog.hide_rows(table, self._dropped_rows) for table in rows])
        self._segment_numbers = {segment.segment: n for n, segment in enumerate(self.segments)}
        self._units = self._index_units()
        self._cache: OrderedDict[tuple[str, int, int, int], _UnitColumns] = OrderedDict()
        self._cache_bytes, self._cached_bytes = cache_bytes, 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[dict[str, Any]]]:
        """Reopen where it is unpickled."""
        return _reopen, (self._arguments,)

    def __repr__(self) -> str:
        """What it is and what it holds."""
        return f"Store({self.uri!r}, rows={len(self.rows)}, teachers={sorted(self.teachers)})"

    def teacher(self, name: str) -> TeacherManifest:
        """The manifest of one teacher.

        Raises:
            StoreError: No such teacher; the message lists the known ones.
        """
        if name not in self.teachers:
            known = ", ".join(sorted(self.teachers)) or "none"
            raise StoreError(f"{self.uri} has no teacher {name!r}; it has: {known}")
        return self.teachers[name]

    def missing_units(self, teacher: str, *, view: int = 0) -> list[tuple[str, int]]:
        """Units (segment, index) of a teacher that are planned and not committed."""
        self.teacher(teacher)
        return [
            (segment.segment, index)
            for number, segment in enumerate(self.segments)
            for index in range(segment.units)
            if (teacher, number, view, index) not in self._units
        ]

    def logits(self, teacher: str, rows_B: NDArray[np.int64], *, view: int = 0) -> NDArray[np.float32]:
        """Raw logits `[B, C]`, float32, of rows by number, in the order asked for.

        Args:
            teacher: Name of the teacher.
            rows_B: Row numbers, 0 to `len(rows) - 1`, repeated or not.
            view: Number of the view.

        Raises:
            StoreError: No such teacher, or a row number out of range.
            IncompleteStore: A row's unit is not committed.
            CorruptObject: An object is damaged; the message names it.
        """
        manifest = self.teacher(teacher)
        rows_B = np.asarray(rows_B, dtype=np.int64)
        if len(rows_B) and (rows_B.min() < 0 or rows_B.max() >= len(self.rows)):
            raise StoreError(
                f"rows {rows_B.min()} to {rows_B.max()} asked of {self.uri}, which has {len(self.rows)}"
            )
        logits_BC = np.empty((len(rows_B), manifest.num_classes), dtype=np.float32)
        codec = codec_from(manifest.codec)
        segment_B, position_B = self.rows.segments[rows_B], self.rows.positions[rows_B]
        for number, segment in enumerate(self.segments):
            in_segment = np.flatnonzero(segment_B == number)
            unit_B, place_B = np.divmod(position_B[in_segment], segment.unit_rows)
            order = np.argsort(unit_B, kind="stable")
            firsts = np.flatnonzero(np.diff(unit_B[order], prepend=-1))
            for chosen in np.split(order, firsts[1:]) if len(order) else ():
                columns = self._unit_columns(manifest, number, view, int(unit_B[chosen[0]]))
                decoded = codec.decode({name: values[place_B[chosen]] for name, values in columns.items()})
                logits_BC[in_segment[chosen]] = decoded.shifted_BC + decoded.row_max_B[:, None]
        return logits_BC

    def stats(self, teacher: str, *, view: int = 0) -> pa.Table:
        """Statistics of all committed rows of a teacher, with the schema `tables.STATS`.

        Raises:
            CorruptObject: A part is damaged; the message names it.
        """
        self.teacher(teacher)
        parts = []
        for (name, number, unit_view, index), commit in sorted(self._units.items()):
            if (name, unit_view) == (teacher, view):
                key = keys.stats_part(teacher, self.segments[number].segment, view, index)
                data = self.objects.read_recorded(self._record(commit, key))
                rows = self.commits["rows"][commit].as_py()
                part = tables.from_bytes(data, tables.STATS, key, rows=rows)
                parts.append(part.filter(pc.invert(pc.is_in(part["sample_id"], self._dropped_rows))))
        return pa.concat_tables(parts) if parts else tables.STATS.empty_table()

    def to_pandas(
        self,
        teachers: str | list[str] | None = None,
        *,
        temperature: float | None = None,
        sample_ids: list[str] | None = None,
        view: int = 0,
    ) -> pd.DataFrame:
        """Decoded soft targets as a frame: a row a teacher and sample, a column a class.

        Args:
            teachers: One teacher, several, or None for all.
            temperature: Probabilities at this temperature; None gives the raw logits.
            sample_ids: Which samples; None gives all rows.
            view: Number of the view.

        Returns:
            Columns `teacher`, `sample_id`, `label` (nullable), then the class names.

        Raises:
            StoreError: Unknown teacher or sample, or a temperature the codec makes no claim for.
        """
        from softcask.pipeline.store.frame import soft_target_frame

        names = [teachers] if isinstance(teachers, str) else teachers or sorted(self.teachers)
        if temperature is not None:
            for name in names:
                check_claim(codec_from(self.teacher(name).codec), temperature, f"teacher {name!r}")
        rows_B = np.arange(len(self.rows)) if sample_ids is None else self._known_rows(sample_ids)
        return soft_target_frame(
            {name: self.logits(name, rows_B, view=view) for name in names},
            class_names=self.class_names,
            sample_ids=self.rows.sample_ids[rows_B],
            labels_B=self.rows.labels[rows_B],
            temperature=temperature,
        )

    def zarr_group(self, teacher: str, segment: str = "s0000", *, view: int = 0) -> zarr.Group:
        """A teacher's arrays as plain zarr-python reads them; row i is row i of the segment's table."""
        import fsspec
        import zarr

        self.teacher(teacher)
        path = self.objects.path(keys.logits_group(teacher, segment, view))
        if self.objects.local is not None:
            return zarr.open_group(path, mode="r")
        mapper = fsspec.FSMap(path, self.objects.fs)
        return zarr.open_group(zarr.storage.FsspecStore.from_mapper(mapper, read_only=True), mode="r")

    def _known_rows(self, sample_ids: list[str]) -> NDArray[np.int64]:
        rows_B = self.rows.find(sample_ids)
        if (missing := np.flatnonzero(rows_B < 0)).size:
            raise StoreError(
                f"{self.uri} has no row {sample_ids[missing[0]]!r} ({missing.size} of the ids are unknown)"
            )
        return rows_B

    def _index_units(self) -> dict[tuple[str, int, int, int], int]:
        """Where each unit stands among the commits; its objects' records are looked at when it is fetched."""
        if not self.segments:
            return {}
        teachers = self.commits["teacher"].to_pylist()
        number_U = np.array(
            [self._segment_numbers.get(name, -1) for name in self.commits["segment"].to_pylist()],
            dtype=np.int64,
        )
        view_U, index_U, start_U, stop_U = (
            self.commits[name].to_numpy() for name in ("view", "index", "start", "stop")
        )
        unit_rows_U, rows_U, units_U = (
            np.array([getattr(segment, name) for segment in self.segments], dtype=np.int64)[number_U]
            for name in ("unit_rows", "rows", "units")
        )
        place_U = np.clip(index_U, 0, units_U)  # beyond any unit there is nothing that could be multiplied
        first_U, end_U = place_U * unit_rows_U, np.minimum((place_U + 1) * unit_rows_U, rows_U)
        known_U = (number_U >= 0) & np.array([name in self.teachers for name in teachers], dtype=np.bool_)
        right_U = (place_U == index_U) & (index_U < units_U) & (first_U == start_U) & (end_U == stop_U)
        if (wrong := np.flatnonzero(known_U & ~right_U)).size:
            commit = int(wrong[0])
            raise CorruptObject(
                f"the catalog of {self.uri} gives unit {index_U[commit]} of {teachers[commit]!r} the rows "
                f"{start_U[commit]} to {stop_U[commit]}, which the segment does not"
            )
        units = zip(teachers, number_U.tolist(), view_U.tolist(), index_U.tolist(), strict=True)
        return {
            unit: commit
            for commit, (unit, known) in enumerate(zip(units, known_U.tolist(), strict=True))
            if known
        }

    def _record(self, commit: int, key: str) -> ObjectRecord:
        """What was committed under `key` with a unit."""
        records = self.commits["objects"][commit].as_py() or ()
        record = next((record for record in records if record and record["key"] == key), None)
        if record is None:
            raise CorruptObject(
                f"the catalog of {self.uri} has no record of {key}, though its unit is committed"
            )
        try:
            return ObjectRecord.model_validate(record)
        except ValidationError as error:
            raise CorruptObject(
                f"the catalog of {self.uri} has no usable record of {key}: {error}"
            ) from error

    def _unit_columns(self, teacher: TeacherManifest, number: int, view: int, index: int) -> _UnitColumns:
        key = (teacher.name, number, view, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        columns = self._fetch_unit(teacher, number, view, index)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = columns
                self._cached_bytes += _bytes(columns)
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= _bytes(dropped)
        return columns

    def _fetch_unit(self, teacher: TeacherManifest, number: int, view: int, index: int) -> _UnitColumns:
        segment = self.segments[number]
        commit = self._units.get((teacher.name, number, view, index))
        if commit is None:
            missing = len(self.missing_units(teacher.name, view=view))
            raise IncompleteStore(
                f"unit {index} of teacher {teacher.name!r} (segment {segment.segment}, view {view}) is not "
                f"committed in {self.uri}; {missing} of its units are missing. Run `softcask precompute` "
                "again to label them."
            )
        columns: _UnitColumns = {}
        for part in unit_objects(teacher, segment, view, index):
            columns |= part.decode(self.objects.read_recorded(self._record(commit, part.key)))
        return columns


def open_store(uri: str, *, allow_partial: bool = False, cache_bytes: int = CACHE_BYTES) -> Store:
    """Open a store to read.

    Args:
        uri: A local path or an fsspec URL.
        allow_partial: Also read what is committed and not sealed yet; rows without logits raise when asked
            for.
        cache_bytes: Decoded units to keep in memory, in bytes.

    Raises:
        StoreNotFound: There is no store at `uri`.
        IncompleteStore: It is not sealed, and `allow_partial` was not given.
        FormatTooNew: It was made by a newer softcask.
        CorruptObject: A manifest or table is damaged; the message names it.
    """
    return Store(uri, allow_partial=allow_partial, cache_bytes=cache_bytes)


def _reopen(arguments: dict[str, Any]) -> Store:
    return Store(**arguments)


def _no_commits() -> pa.Table:
    return tables.COMMITS.empty_table()


def _read_root(objects: StoreObjects) -> RootManifest:
    try:
        return RootManifest.from_bytes(objects.read(keys.ROOT), keys.ROOT)
    except StoreNotFound as error:
        raise StoreNotFound(
            f"there is no softcask store at {objects.uri} (no {keys.ROOT} in it); check the path, "
            "or make a store with `softcask precompute`"
        ) from error


def _sealed(objects: StoreObjects, generation: Generation | None) -> catalog.Contents:
    segments: list[SegmentManifest] = []
    teachers: dict[str, TeacherManifest] = {}
    for record in generation.manifests if generation else ():
        if record.key.endswith("/segment.json"):
            segments.append(SegmentManifest.from_bytes(objects.read_recorded(record), record.key))
        elif record.key.endswith("/teacher.json"):
            teacher = TeacherManifest.from_bytes(objects.read_recorded(record), record.key)
            teachers[teacher.name] = teacher
    return catalog.Contents(segments=tuple(segments), teachers=teachers)


def _bytes(columns: _UnitColumns) -> int:
    return sum(values.nbytes for values in columns.values())
