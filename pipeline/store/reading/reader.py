"""Read a store: rows, teachers, logits by row. What a student or a notebook holds in its hands.

The codec is rebuilt from the store, every byte that counts is checked against its committed checksum before
the first row is made from it, and rows are gathered from where they lie. No listing: the catalog says what
there is.

Memory: what had to be unpacked, decoded or fetched is kept up to `cache_bytes` (and at least the unit that
is read); beside it stand the table of rows, the catalog, what is asked for, and up to 64 MiB of each column
whose rows have 16 bytes or fewer. Files on a local disk are mapped: their pages are the system's, which drops
them when it wants the memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.memory import MemoryFileSystem
from numpy.typing import NDArray

from softcask.pipeline.store import catalog
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.foreign_arrays import ForeignArrays
from softcask.pipeline.store.reading.buffers import ObjectBuffers
from softcask.pipeline.store.reading.gather import Gatherer
from softcask.pipeline.store.reading.local_cache import CACHE_DISK_BYTES, LocalCache
from softcask.pipeline.store.reading.order import Batch, batches
from softcask.pipeline.store.reading.selection import by_segment
from softcask.pipeline.store.reading.unit_index import UnitIndex
from softcask.pipeline.store.rows import Rows, read_rows
from softcask.pipeline.store.unsealed import read_unsealed
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.absent import with_absent
from softcask.storage_schemas.codecs.base import Codec, Column, check_claim, check_keeps_logits
from softcask.storage_schemas.errors import IncompleteStore, StoreError, StoreNotFound
from softcask.storage_schemas.manifest import (
    Dropped,
    RootManifest,
    TeacherManifest,
)
from softcask.storage_schemas.views import ViewManifest

if TYPE_CHECKING:
    import pandas as pd
    import zarr

CACHE_BYTES = 512 << 20
"""What one reader keeps in memory of what it has unpacked, decoded or fetched, by default."""

Verify = Literal["once", "always"]
"""When a chunk's checksum is verified: when it is first touched, or whenever reading comes to it."""

_DECODED_ROWS = 4096
"""Rows that are decoded at one time: what that takes is freed again."""


class Store:
    """An open store. Safe to share between threads and with forked processes; picklable (caches stay behind).

    Attributes:
        uri: Where it lies.
        class_names: Names of the classes, in the order of the logits.
        segments: Manifests of its segments, in order.
        teachers: Manifests of its teachers, by name.
        views: What its views are pinned to, by number from 1 on; view 0 is the rows as they are.
        generation: Number of the sealed generation that is read; 0 where nothing is sealed.
        commits: The commits that it reads, with the schema `tables.COMMITS`.
    """

    def __init__(
        self,
        uri: str,
        *,
        allow_partial: bool = False,
        cache_bytes: int = CACHE_BYTES,
        verify: Verify = "once",
        cache_dir: str | None = None,
        cache_dir_bytes: int = CACHE_DISK_BYTES,
        generation: int | None = None,
    ) -> None:
        """Open the store at `uri`; see `open_store`."""
        self.uri = uri
        self.objects = StoreObjects.at(uri)
        self.class_names = _read_root(self.objects).class_names
        sealed = catalog.generation_to_read(self.objects, generation)
        if sealed is None and not allow_partial:
            raise IncompleteStore(
                f"{uri} is not sealed: no precompute has finished on it yet. Finish it by running "
                "`softcask precompute` again, or open it with allow_partial=True."
            )
        dropped = sealed.dropped if sealed else Dropped()
        if allow_partial:
            contents = catalog.read_contents(self.objects, dropped)
        else:
            contents = catalog.sealed_contents(self.objects, sealed)
        self.generation = sealed.generation if sealed else 0
        self.segments = contents.segments
        self.teachers: Mapping[str, TeacherManifest] = contents.teachers
        self.views: Mapping[int, ViewManifest] = contents.views
        self._contents = contents
        self.commits = catalog.read_commits(self.objects, sealed) if sealed else tables.COMMITS.empty_table()
        if allow_partial:
            unsealed = read_unsealed(self.objects, contents, self.commits)
            self.commits = pa.concat_tables([self.commits, unsealed])
        self._dropped_rows = catalog.read_dropped_rows(self.objects, dropped)
        foreign = ForeignArrays(self.objects, sealed.manifests if sealed else ())
        self._units = UnitIndex(uri, self.commits, self.segments, self.teachers, foreign)
        self._rows: Rows | None = None
        self._codecs: dict[str, Codec] = {}
        self._columns_of: dict[str, tuple[Column, ...]] = {}
        remote = self.objects.local is None and not _in_memory(self.objects) and cache_dir_bytes > 0
        cache = LocalCache.at(cache_dir, cache_dir_bytes) if remote else None
        self._gatherer = Gatherer(
            self._units,
            ObjectBuffers(self.objects, cache),
            cache_bytes=cache_bytes,
            verify_always=verify == "always",
        )
        self._cache_bytes = cache_bytes
        self._arguments = {
            "uri": uri,
            "allow_partial": allow_partial,
            "cache_bytes": cache_bytes,
            "verify": verify,
            "cache_dir": cache_dir,
            "cache_dir_bytes": cache_dir_bytes,
            # Who opens it anew elsewhere is to read the same rows, though more were sealed meanwhile.
            "generation": None if allow_partial else self.generation,
        }
        _OPEN.add(self)

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[dict[str, Any]]]:
        """Reopen where it is unpickled."""
        return _reopen, (self._arguments,)

    def __repr__(self) -> str:
        """What it is and what it holds."""
        rows = sum(segment.rows - segment.quarantined for segment in self.segments)
        return f"Store({self.uri!r}, rows={rows}, teachers={sorted(self.teachers)})"

    @property
    def rows(self) -> Rows:
        """Its readable rows, numbered from 0 over all segments; their tables are read when first asked for.

        Raises:
            CorruptObject: A table is damaged, or holds other numbers of rows than its segment says.
        """
        if self._rows is None:
            parts = (read_rows(self.objects, segment) for segment in self.segments)
            self._rows = Rows.of([catalog.hide_rows(table, self._dropped_rows) for table in parts])
        return self._rows

    def teacher(self, name: str) -> TeacherManifest:
        """The manifest of one teacher.

        Raises:
            StoreError: No such teacher; the message lists the known ones.
        """
        if name not in self.teachers:
            known = ", ".join(sorted(self.teachers)) or "none"
            raise StoreError(f"{self.uri} has no teacher {name!r}; it has: {known}")
        return self.teachers[name]

    def view(self, number: int) -> ViewManifest:
        """What a view is pinned to.

        Raises:
            StoreError: No such view, or 0, which is none; the message lists the known ones.
        """
        if number not in self.views:
            known = ", ".join(map(str, self.views)) or "none"
            raise StoreError(
                f"{self.uri} has no view {number} of its rows; beside the rows themselves (0): {known}"
            )
        return self.views[number]

    def planned_units(self, teacher: str) -> int:
        """Units that a teacher is to have, over all segments and views.

        Raises:
            StoreError: No such teacher.
        """
        return self._contents.planned_units(self.teacher(teacher).name)

    def segment_table(self, number: int) -> pa.Table:
        """The rows of a segment as they were indexed, with the schema `tables.ROWS`: dropped ones among them.

        Raises:
            CorruptObject: It is damaged.
        """
        return read_rows(self.objects, self.segments[number])

    def complete_views(self, teachers: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the views, 0 among them, in which all of these teachers have labelled all rows."""
        numbers = (0, *sorted(self.views))
        return tuple(
            view
            for view in numbers
            if not any(self.missing_units(teacher, view=view) for teacher in teachers)
        )

    def codec(self, teacher: str) -> Codec:
        """The codec of one teacher, with the arrays that it keeps once.

        Raises:
            StoreError: No such teacher, or a configuration that does not fit.
            CorruptObject: An array is gone or damaged.
        """
        if teacher not in self._codecs:
            fresh = self._arguments["verify"] == "always"
            self._codecs[teacher] = load_codec(self.objects, self.teacher(teacher), fresh=fresh)
        return self._codecs[teacher]

    def missing_units(self, teacher: str, *, view: int = 0) -> list[tuple[str, int]]:
        """Units (segment, index) of a teacher that are planned and not committed.

        Raises:
            StoreError: No such teacher.
            CorruptObject: As `rows`.
        """
        self.teacher(teacher)
        _ = self.rows  # which refuses a segment that says it has more than there are
        return self._units.missing(teacher, view)

    def logits(self, teacher: str, rows_B: NDArray[np.int64], *, view: int = 0) -> NDArray[np.float32]:
        """Raw logits `[B, C]`, float32, of rows by number, in the order asked for; -inf of absent classes.

        Args:
            teacher: Name of the teacher.
            rows_B: Row numbers, 0 to `len(rows) - 1`, repeated or not.
            view: Number of the view.

        Raises:
            StoreError: No such teacher, a row number out of range, or a codec that does not keep raw logits.
            IncompleteStore: A row's unit is not committed.
            CorruptObject: An object is damaged; the message names it.
        """
        check_keeps_logits(self.codec(teacher), f"teacher {teacher!r} in {self.uri}")
        return self._decoded(teacher, rows_B, view, 1.0, raw=True)

    def logits_at(
        self, teacher: str, rows_B: NDArray[np.int64], temperature: float, *, view: int = 0
    ) -> NDArray[np.float32]:
        """Logits `[B, C]` whose softmax at `temperature` is the teacher's; the largest of a row is 0.

        For soft targets, of any codec: those that do not keep raw logits give what holds at this one
        temperature.

        Raises:
            StoreError: As `logits`, or a temperature that the codec makes no claim for.
            ConfigError: A temperature that is not finite or not above 0.
            IncompleteStore: A row's unit is not committed.
            CorruptObject: An object is damaged; the message names it.
        """
        check_claim(self.codec(teacher), temperature, f"teacher {teacher!r} in {self.uri}")
        return self._decoded(teacher, rows_B, view, temperature, raw=False)

    def encoded(
        self,
        teachers: str | Sequence[str],
        rows_B: NDArray[np.int64],
        *,
        view: int = 0,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Columns as they are stored, by name: `[M, B, *row_shape]` of M teachers, nothing decoded.

        Args:
            teachers: One teacher or several, of equal columns.
            rows_B: Row numbers, in any order.
            view: Number of the view.
            out: What an earlier call returned for as many rows: filled anew instead of making room.

        Raises:
            StoreError: Teachers with other columns than the first, or none; else as `logits`.
            IncompleteStore: A row's unit is not committed.
            CorruptObject: An object is damaged; the message names it.
        """
        names = [teachers] if isinstance(teachers, str) else list(teachers)
        columns = self._common_columns(names)
        rows_B = self._checked(rows_B)
        shapes = {column.name: (len(names), len(rows_B), *column.row_shape) for column in columns}
        if out is None or not all(_fits(out[column.name], shapes[column.name], column) for column in columns):
            out = {column.name: np.empty(shapes[column.name], column.dtype) for column in columns}
        selected = by_segment(self.rows, rows_B)
        for m, name in enumerate(names):
            into = {column.name: out[column.name][m] for column in columns}
            self._gatherer.fill(name, view, selected, columns, into)
        return dict(out)

    def batches(
        self,
        teachers: str | Sequence[str],
        *,
        batch_rows: int = 1024,
        shuffle: tuple[int, int] | None = None,
        pool_bytes: int | None = None,
        view: int = 0,
    ) -> Iterator[Batch]:
        """All rows once, in batches of columns as they are stored; see `encoded`.

        Args:
            teachers: One teacher or several, of equal columns.
            batch_rows: Rows a batch; the last one may have fewer.
            shuffle: (seed, epoch) from which alone the order follows: units at random into pools, and rows at
                random within each pool. None keeps the rows' order.
            pool_bytes: Bytes of rows, as stored, to mix with each other, at least those of one unit; None
                takes the reader's `cache_bytes`, so that nothing is unpacked twice.
            view: Number of the view.

        Raises:
            StoreError: As `encoded`, once the first batch is asked for.
        """
        names = [teachers] if isinstance(teachers, str) else list(teachers)
        row_bytes = len(names) * sum(max(column.row_bytes, 1) for column in self._common_columns(names))
        return batches(
            self.rows,
            self.segments,
            lambda rows_B: self.encoded(names, rows_B, view=view),
            batch_rows=batch_rows,
            shuffle=shuffle,
            pool_rows=(self._cache_bytes if pool_bytes is None else pool_bytes) // row_bytes,
        )

    def stats(self, teacher: str, *, view: int = 0) -> pa.Table:
        """Statistics of all committed rows of a teacher, with the schema `tables.STATS`.

        Raises:
            CorruptObject: A part is damaged; the message names it.
        """
        self.teacher(teacher)
        parts = []
        for number, index, commit in self._units.commits_of(teacher, view):
            key = keys.stats_part(teacher, self.segments[number].segment, view, index)
            data = self.objects.read_recorded(self._units.record(commit, key))
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
        from softcask.pipeline.store.reading.frame import soft_target_frame

        names = [teachers] if isinstance(teachers, str) else teachers or sorted(self.teachers)
        rows_B = np.arange(len(self.rows)) if sample_ids is None else self._known_rows(sample_ids)
        if temperature is None:
            logits = {name: self.logits(name, rows_B, view=view) for name in names}
        else:
            logits = {name: self.logits_at(name, rows_B, temperature, view=view) for name in names}
        return soft_target_frame(
            logits,
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

    def _checked(self, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        rows_B = np.asarray(rows_B, dtype=np.int64)
        if len(rows_B) == 1:
            least = most = int(rows_B[0])
        else:
            least, most = (int(rows_B.min()), int(rows_B.max())) if len(rows_B) else (0, -1)
        if least < 0 or most >= len(self.rows):
            raise StoreError(f"rows {least} to {most} asked of {self.uri}, which has {len(self.rows)}")
        return rows_B

    def _common_columns(self, teachers: Sequence[str]) -> tuple[Column, ...]:
        if not teachers:
            raise StoreError(f"no teacher named to read from {self.uri}")
        columns = [self._columns(name) for name in teachers]
        if other := [name for name, each in zip(teachers, columns, strict=True) if each != columns[0]]:
            raise StoreError(
                f"teachers {teachers[0]!r} and {other[0]!r} of {self.uri} are kept in different columns and "
                "do not fit into one array; read them one by one"
            )
        return columns[0]

    def _decoded(
        self, teacher: str, rows_B: NDArray[np.int64], view: int, temperature: float, *, raw: bool
    ) -> NDArray[np.float32]:
        codec, columns, manifest = self.codec(teacher), self._columns(teacher), self.teacher(teacher)
        rows_B = self._checked(rows_B)
        parts = [] if len(rows_B) else [np.empty((0, manifest.num_classes), dtype=np.float32)]
        for start in range(0, len(rows_B), _DECODED_ROWS):
            some = rows_B[start : start + _DECODED_ROWS]
            selected = by_segment(self.rows, some)
            values = self._gatherer.columns(teacher, view, selected, columns, len(some))
            decoded = codec.decode(values, temperature)
            logits = decoded.shifted_BC + decoded.row_max_B[:, None] if raw else decoded.shifted_BC
            parts.append(with_absent(logits, manifest.num_classes, manifest.absent_classes))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _columns(self, teacher: str) -> tuple[Column, ...]:
        if teacher not in self._columns_of:
            stored_classes = self.teacher(teacher).stored_classes
            self._columns_of[teacher] = self.codec(teacher).columns(stored_classes)
        return self._columns_of[teacher]


def open_store(
    uri: str,
    *,
    allow_partial: bool = False,
    cache_bytes: int = CACHE_BYTES,
    verify: Verify = "once",
    cache_dir: str | None = None,
    cache_dir_bytes: int = CACHE_DISK_BYTES,
) -> Store:
    """Open a store to read.

    Args:
        uri: A local path or an fsspec URL.
        allow_partial: Also read what is committed and not sealed yet; rows without logits raise when asked
            for.
        cache_bytes: What to keep in memory of what was unpacked, decoded or fetched, in bytes.
        verify: Whether a chunk's checksum is verified once, when it is first touched, or each time that
            reading comes to it. Arrays that a codec keeps once are verified once a process, or once for each
            store that is opened: they are in memory from then on.
        cache_dir: Folder for copies of objects that lie neither on a local disk nor in memory; None takes the
            user's folder of caches. Processes may share it.
        cache_dir_bytes: Bytes of copies to keep there; 0 keeps none on disk.

    Raises:
        StoreNotFound: There is no store at `uri`.
        IncompleteStore: It is not sealed, and `allow_partial` was not given.
        FormatTooNew: It was made by a newer softcask.
        CorruptObject: A manifest or table is damaged; the message names it.
        StoreAccess: The filesystem refused, or others may write to `cache_dir`.
    """
    return Store(
        uri,
        allow_partial=allow_partial,
        cache_bytes=cache_bytes,
        verify=verify,
        cache_dir=cache_dir,
        cache_dir_bytes=cache_dir_bytes,
    )


def _reopen(arguments: dict[str, Any]) -> Store:
    return Store(**arguments)


def _renew_all() -> None:
    for store in list(_OPEN):
        store._gatherer.renew()


_OPEN: weakref.WeakSet[Store] = weakref.WeakSet()
os.register_at_fork(after_in_child=_renew_all)


def _fits(values: NDArray[Any], shape: tuple[int, ...], column: Column) -> bool:
    return values.shape == shape and values.dtype == column.dtype and values.flags.c_contiguous


def _in_memory(objects: StoreObjects) -> bool:
    return isinstance(objects.fs, MemoryFileSystem)


def _read_root(objects: StoreObjects) -> RootManifest:
    try:
        return RootManifest.from_bytes(objects.read(keys.ROOT), keys.ROOT)
    except StoreNotFound as error:
        raise StoreNotFound(
            f"there is no softcask store at {objects.uri} (no {keys.ROOT} in it); check the path, "
            "or make a store with `softcask precompute`"
        ) from error
