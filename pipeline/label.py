"""Label units: rows in, logits out, committed. Reader, forward pass and writer overlap.

A labeller lives in one process, holds all teachers of its group, and runs three threads: one reads the
batches of the next unit while one runs the teachers and one commits the unit before. It knows nothing of
where it runs.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.pinning import pin
from softcask.pipeline.plan import Task
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import read_contents
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.receipts import read_commit
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.store.writing.commit import commit_encoded
from softcask.pipeline.store.writing.encoding import EncodedUnit, UnitEncoder, drift
from softcask.pipeline.store.writing.prepare import known_again
from softcask.pipeline.teachers.base import Teacher, TeacherOptions
from softcask.pipeline.teachers.checks import check_logits
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import TransferSetError
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest
from softcask.storage_schemas.tables import content_hashes_of

_BATCHES_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What one task did.

    Attributes:
        task: The task.
        rows: Rows that now have logits, by teacher, in units this call committed.
        seconds: Time spent to `read`, in `forward:TEACHER`, to `encode` and to `write`.
        device: Name of the device.
        warnings: What should be looked at.
    """

    task: Task
    rows: dict[str, int]
    seconds: dict[str, float]
    device: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRecipe:
    """All that a process needs to label; picklable.

    Attributes:
        store_uri: Where logits go; its root and segments stand there already.
        transfer_set: Where rows come from.
        teachers: Co-resident teachers, all with one batch size.
        manifests: What their names are pinned to, in the same order.
        python_path: Folders that factories are imported from.
    """

    store_uri: str
    transfer_set: SourceOptions
    teachers: tuple[TeacherOptions, ...]
    manifests: tuple[TeacherManifest, ...]
    python_path: tuple[str, ...] = ()

    def build(self) -> Labeller:
        """Load the teachers in this process.

        Raises:
            SoftcaskError: A teacher, the transfer set or the store cannot be used.
        """
        return Labeller(self)


@dataclass(slots=True)
class _Work:
    """A task on its way through the threads."""

    task: Task
    segment: SegmentManifest
    rows: UnitRows
    teachers: tuple[str, ...] = ()
    unchanged: bool = False
    batches: Queue[NDArray[Any] | BaseException | None] = field(default_factory=lambda: Queue(_BATCHES_AHEAD))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class Labeller:
    """Runs tasks, in the order they are submitted."""

    def __init__(self, recipe: LabelRecipe) -> None:
        """Load teachers and check them against their probe rows; see `LabelRecipe.build`."""
        add_to_path(recipe.python_path)
        self._objects = StoreObjects.at(recipe.store_uri)
        self._source: TransferSet = recipe.transfer_set.open()
        self._batch_size = recipe.teachers[0].batch_size
        self._segments = _Segments(self._objects)
        self._manifests = {manifest.name: manifest for manifest in recipe.manifests}
        self._order = threading.Lock()
        self._closed = threading.Event()
        self._reader, self._forwarder, self._writer = (
            ThreadPoolExecutor(1, name) for name in ("read", "run", "write")
        )
        self._teachers = self._forwarder.submit(self._load, recipe).result()
        self._codecs = {
            name: load_codec(self._objects, manifest) for name, manifest in self._manifests.items()
        }

    def submit(self, task: Task) -> Future[TaskReport]:
        """Start a task; its report comes when all its units are committed.

        The caller bounds how many tasks are under way: each may hold the logits of its whole unit.
        """
        done: Future[TaskReport] = Future()
        work = _Work(
            task=task, segment=self._segments.manifest(task.segment), rows=self._segments.unit_rows(task)
        )
        # Reader and forward thread must see tasks in one order, or each waits for what the other has not
        # begun.
        with self._order:
            self._reader.submit(self._read, work)
            self._forwarder.submit(self._forward, work, done)
        return done

    def close(self) -> None:
        """End the threads within a batch; a unit whose logits are complete is still committed.

        Reports of units that are given up raise `concurrent.futures.CancelledError`.
        """
        self._closed.set()
        for pool in (self._reader, self._forwarder, self._writer):
            pool.shutdown()

    def _load(self, recipe: LabelRecipe) -> dict[str, Teacher]:
        segments = self._segments.all()
        teachers = {}
        for options, manifest in zip(recipe.teachers, recipe.manifests, strict=True):
            teacher = teachers[options.name] = options.load()
            pin(self._objects, teacher, options, manifest, self._source, segments)
        return teachers

    def _read(self, work: _Work) -> None:
        """Put the unit's batches into its queue, then None; or what went wrong."""
        try:
            # Another driver may have committed a unit since this one planned it.
            work.teachers = tuple(
                name
                for name in work.task.teachers
                if read_commit(self._objects, self._manifests[name], work.task.unit) is None
            )
            work.unchanged = self._is_as_indexed(work.segment)
            positions_R = work.task.start + np.flatnonzero(work.rows.readable)
            batches = range(0, len(positions_R), self._batch_size) if work.teachers else ()
            for first in batches:
                self._refuse_if_closed(work)
                started = time.perf_counter()
                inputs_B = self._read_batch(work, positions_R[first : first + self._batch_size])
                work.seconds["read"] += time.perf_counter() - started
                work.batches.put(inputs_B)
            if work.unchanged and not self._is_as_indexed(work.segment):
                raise TransferSetError(
                    f"the transfer set changed while unit {work.task.unit} was read. Restore the data, or "
                    "label the new data into another store; what is committed is safe."
                )
            work.batches.put(None)
        except BaseException as error:  # handed to the thread that waits, which raises it
            work.batches.put(error)

    def _is_as_indexed(self, segment: SegmentManifest) -> bool:
        return self._source.unchanged() and known_again(self._objects, segment, self._source.describe())

    def _read_batch(self, work: _Work, positions_B: NDArray[np.int64]) -> NDArray[Any]:
        batch = self._source.read(work.segment.first + positions_B)
        if batch.problems:
            place, reason = min(batch.problems.items())
            raise TransferSetError(
                f"{self._row(work, positions_B[place])} could be read when it was indexed and cannot now: "
                f"{reason}. Restore it and run again; what is committed is safe."
            )
        # Of a source that is known to be as it was, one row a batch tells whether rows were mixed up.
        looked_at = slice(0, 1 if work.unchanged else None)
        expected_B = self._segments.hashes(work.task.segment)[positions_B[looked_at]]
        differ = np.flatnonzero(content_hashes(batch.inputs_B[looked_at]) != expected_B)
        if differ.size:
            raise TransferSetError(
                f"{self._row(work, positions_B[differ[0]])} is not what it was when it was indexed "
                f"({differ.size} of {len(positions_B)} rows of this batch changed). "
                "Restore the data, or label the new data into another store."
            )
        return batch.inputs_B

    def _refuse_if_closed(self, work: _Work) -> None:
        if self._closed.is_set():
            raise CancelledError(f"unit {work.task.unit} was given up: its labeller was closed")

    def _row(self, work: _Work, position: int) -> str:
        return (
            f"row {position} ({work.rows.sample_ids[position - work.task.start]!r}) of unit {work.task.unit}"
        )

    def _forward(self, work: _Work, done: Future[TaskReport]) -> None:
        try:
            encoded = self._run_teachers(work)
        except BaseException as error:
            for _ in _until_end(work.batches):
                pass  # the reader must not wait for ever on a full queue
            done.set_exception(error)
            return
        self._writer.submit(self._write, work, encoded, done)

    def _run_teachers(self, work: _Work) -> dict[str, EncodedUnit]:
        ids = [
            name for name, readable in zip(work.rows.sample_ids, work.rows.readable, strict=True) if readable
        ]
        encoders: dict[str, UnitEncoder] = {}
        first = 0
        for inputs_B in _until_end(work.batches, raising=True):
            self._refuse_if_closed(work)
            stop = first + len(inputs_B)
            encoders = encoders or self._encoders(work, len(ids))
            for name, encoder in encoders.items():
                logits_BC = self._checked_logits(work, name, inputs_B, ids[first:stop])
                started = time.perf_counter()
                encoder.add(logits_BC)
                work.seconds["encode"] += time.perf_counter() - started
            first = stop
        # A unit whose rows are all quarantined is committed too.
        return {name: encoder.finish() for name, encoder in (encoders or self._encoders(work, 0)).items()}

    def _encoders(self, work: _Work, rows: int) -> dict[str, UnitEncoder]:
        return {
            name: UnitEncoder(self._codecs[name], rows=rows, num_classes=self._manifests[name].num_classes)
            for name in work.teachers
        }

    def _checked_logits(
        self, work: _Work, name: str, inputs_B: NDArray[Any], sample_ids: list[str]
    ) -> NDArray[np.float32]:
        started = time.perf_counter()
        logits_BC = self._teachers[name].logits(inputs_B)
        work.seconds[f"forward:{name}"] += time.perf_counter() - started
        classes = self._manifests[name].num_classes
        check_logits(logits_BC, num_classes=classes, teacher=name, unit=work.task.unit, sample_ids=sample_ids)
        return logits_BC

    def _write(self, work: _Work, encoded: dict[str, EncodedUnit], done: Future[TaskReport]) -> None:
        try:
            started = time.perf_counter()
            told = [
                drift(unit.fidelity, self._manifests[name].expected_fidelity, f"{name} on {work.task.unit}")
                for name, unit in encoded.items()
            ]
            commits = {
                name: commit_encoded(self._objects, self._manifests[name], work.rows, unit)
                for name, unit in encoded.items()
            }
            rows = {name: commit.rows for name, commit in commits.items()}
            work.seconds["write"] = time.perf_counter() - started
            done.set_result(
                TaskReport(
                    task=work.task,
                    rows=rows,
                    seconds=dict(work.seconds),
                    device=self._device(),
                    warnings=tuple(line for line in told if line),
                )
            )
        except BaseException as error:
            done.set_exception(error)

    def _device(self) -> str:
        devices = {str(getattr(teacher, "device", "cpu")) for teacher in self._teachers.values()}
        return ",".join(sorted(devices))


class _Segments:
    """The segments' manifests and rows, read from the store when first asked for."""

    def __init__(self, objects: StoreObjects) -> None:
        self._objects = objects
        self._tables: dict[str, tuple[SegmentManifest, pa.Table, NDArray[np.void]]] = {}
        self._lock = threading.Lock()

    def all(self) -> list[tuple[SegmentManifest, pa.Table]]:
        segments = read_contents(self._objects).segments
        return [self._entry(segment.segment)[:2] for segment in segments]

    def manifest(self, segment: str) -> SegmentManifest:
        return self._entry(segment)[0]

    def hashes(self, segment: str) -> NDArray[np.void]:
        return self._entry(segment)[2]

    def unit_rows(self, task: Task) -> UnitRows:
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


def _until_end(
    batches: Queue[NDArray[Any] | BaseException | None], *, raising: bool = False
) -> Iterator[NDArray[Any]]:
    """The batches of a queue up to its end; the reader's error is raised or, when draining, ends it too."""
    while (item := batches.get()) is not None and not isinstance(item, BaseException):
        yield item
    batches.put(None)  # whoever looks again finds an end, too
    if raising and item is not None:
        raise item
