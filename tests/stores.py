"""Small stores for tests, made through the store's own doors but without any teacher or torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.layout import zarr_metadata
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.store.writing.commit import commit_unit
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.manifest import (
    CodecSpec,
    SegmentManifest,
    TeacherManifest,
    UnitCommit,
)
from softcask.storage_schemas.runs import RunClaim, RunProgress, RunRecord


def rows_table(rows: int, *, quarantined: Sequence[int] = (), first: int = 0) -> pa.Table:
    """Rows `id-FIRST`..., every third without a label, labels 0 and 1 in turn."""
    gone = set(quarantined)
    hashes = [bytes([(first + row) % 256]) * 16 for row in range(rows)]
    return pa.table(
        {
            "sample_id": [f"id-{first + row:03d}" for row in range(rows)],
            "content_hash": [None if row in gone else hashes[row] for row in range(rows)],
            "label": [None if row in gone or row % 3 == 2 else row % 2 for row in range(rows)],
            "quarantine": ["unreadable" if row in gone else None for row in range(rows)],
        },
        schema=tables.ROWS,
    )


DENSE16 = CodecSpec(name="dense16")


def teacher_manifest(
    name: str, *, classes: int = 3, seed: int = 0, codec: CodecSpec = DENSE16
) -> TeacherManifest:
    return TeacherManifest(
        name=name,
        kind="torch",
        role="member",
        num_classes=classes,
        batch_size=4,
        codec=codec,
        fingerprint={"weights": f"sha256:{name}-{seed}"},
        recorded={"versions": {"python": "3.11"}},
    )


def segment_of(
    objects: StoreObjects, table: pa.Table, *, unit_rows: int = 8, segment: str = "s0000"
) -> SegmentManifest:
    return prepare_segment(
        objects,
        segment,
        source={"kind": "made", "rows": len(table)},
        input_shape=(2, 2),
        input_dtype="uint8",
        unit_rows=unit_rows,
        index=lambda: table,
        choose_unit_rows=lambda _: unit_rows,
    )


def unit_rows_of(segment: SegmentManifest, table: pa.Table, index: int) -> UnitRows:
    start, stop = segment.unit_range(index)
    part = table.slice(start, stop - start).to_pydict()
    return UnitRows(
        segment=segment,
        view=0,
        index=index,
        sample_ids=pa.array(part["sample_id"], pa.string()),
        labels=np.array([-1 if label is None else label for label in part["label"]], dtype=np.int64),
        readable=np.array([reason is None for reason in part["quarantine"]], dtype=np.bool_),
    )


def pin_by_hand(objects: StoreObjects, teacher: TeacherManifest, segments: Sequence[SegmentManifest]) -> None:
    """What pinning leaves behind: metadata of the arrays, a probe, the manifest."""
    for segment in segments:
        for key, document in zarr_metadata(teacher, segment, 0).items():
            objects.publish_equal(key, document)
    probe = pa.table(
        {"row": [0], "sample_id": ["id-000"], "logits": [[0.5] * teacher.num_classes]}, schema=tables.PROBE
    )
    objects.publish(keys.probe(teacher.name), tables.to_bytes(probe))
    objects.publish(keys.teacher_manifest(teacher.name), teacher.to_bytes())


@dataclass(slots=True)
class MadeStore:
    """A store of one or more segments, and the logits that were put into it.

    Attributes:
        objects: The store.
        classes: Number of classes.
        unit_rows: Rows a unit.
        segments: Manifest and table of each segment.
        teachers: By name.
        logits: `[rows, C]` by teacher and segment, quarantined rows among them.
    """

    objects: StoreObjects
    classes: int = 3
    unit_rows: int = 8
    segments: dict[str, tuple[SegmentManifest, pa.Table]] = field(default_factory=dict)
    teachers: dict[str, TeacherManifest] = field(default_factory=dict)
    logits: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def at(cls, uri: str, *, class_names: Sequence[str] = ("class 0", "class 1", "class 2")) -> MadeStore:
        objects = StoreObjects.at(uri)
        prepare_root(objects, class_names)
        return cls(objects, classes=len(class_names))

    def add_segment(self, rows: int, *, quarantined: Sequence[int] = ()) -> str:
        name = keys.segment_name(len(self.segments))
        first = sum(len(table) for _, table in self.segments.values())
        table = rows_table(rows, quarantined=quarantined, first=first)
        segment = segment_of(self.objects, table, unit_rows=self.unit_rows, segment=name)
        self.segments[name] = segment, read_rows(self.objects, segment)
        return name

    def add_teacher(self, name: str, *, seed: int = 0, codec: CodecSpec = DENSE16) -> TeacherManifest:
        teacher = teacher_manifest(name, classes=self.classes, seed=seed, codec=codec)
        self.teachers[name] = teacher
        pin_by_hand(self.objects, teacher, [segment for segment, _ in self.segments.values()])
        for segment, (manifest, _) in self.segments.items():
            rng = np.random.default_rng([seed, *name.encode(), *segment.encode()])
            self.logits[name, segment] = rng.normal(0, 4, (manifest.rows, self.classes)).astype(np.float32)
        return teacher

    def teacher_without(self, name: str, absent: Sequence[int], codec: CodecSpec) -> TeacherManifest:
        """A teacher of which these classes are absent; its logits are of the others."""
        teacher = teacher_manifest(name, classes=self.classes, codec=codec)
        teacher = teacher.model_copy(update={"absent_classes": tuple(absent)})
        self.teachers[name] = teacher
        pin_by_hand(self.objects, teacher, [segment for segment, _ in self.segments.values()])
        for segment, (manifest, _) in self.segments.items():
            rng = np.random.default_rng([*name.encode(), *segment.encode()])
            shape = manifest.rows, teacher.stored_classes
            self.logits[name, segment] = rng.normal(0, 4, shape).astype(np.float32)
        return teacher

    def rows_of(self, index: int, segment: str = "s0000") -> UnitRows:
        return unit_rows_of(*self.segments[segment], index)

    def commit(
        self, teacher: str, index: int, segment: str = "s0000", *, objects: StoreObjects | None = None
    ) -> UnitCommit:
        rows = self.rows_of(index, segment)
        start, stop = rows.segment.unit_range(index)
        logits_RC = self.logits[teacher, segment][start:stop][rows.readable]
        return commit_unit(objects or self.objects, self.teachers[teacher], rows, logits_RC)

    def commit_all(self, *teachers: str) -> None:
        for teacher in teachers or self.teachers:
            for segment, (manifest, _) in self.segments.items():
                for index in range(manifest.units):
                    self.commit(teacher, index, segment)

    def readable_logits(self, teacher: str) -> NDArray[np.float32]:
        """`[N, C]` of the readable rows of all segments, in order: row i of an open store."""
        parts = []
        for segment, (_, table) in self.segments.items():
            readable = [reason is None for reason in table["quarantine"].to_pylist()]
            parts.append(self.logits[teacher, segment][readable])
        return np.concatenate(parts)

    def record_run(self, run: str = "20260101T000000-000000") -> None:
        record = RunRecord(
            run=run,
            started="2026-01-01T00:00:00+00:00",
            wall_seconds=1.5,
            executor="serial",
            workers=1,
            host="somewhere",
            versions={"python": "3.11"},
            units={"alpha": 3},
            rows={"alpha": 19},
            device_seconds={"alpha": 0.5},
            stage_seconds={"read": 0.25},
            devices=("cpu",),
        )
        progress = RunProgress(
            run=run,
            started=record.started,
            updated="2026-01-01T00:00:01.500000+00:00",
            beat=1,
            interval=10.0,
            host=record.host,
            executor=record.executor,
            stage="label",
            outcome="finished",
        )
        claim = RunClaim(number=1, run=run, host=record.host, claimed=record.started)
        self.objects.publish(keys.run_record(run), record.to_bytes())
        self.objects.publish(keys.run_progress(run), progress.to_bytes())
        self.objects.publish(keys.claim(claim.number), claim.to_bytes())


def sealed_store(
    uri: str,
    *,
    teachers: Sequence[str] = ("alpha", "beta"),
    rows: int = 20,
    quarantined: Sequence[int] = (5,),
) -> MadeStore:
    """One segment of 20 rows in units of 8, row 5 quarantined; sealed."""
    made = MadeStore.at(uri)
    made.add_segment(rows, quarantined=quarantined)
    for name in teachers:
        made.add_teacher(name)
    made.commit_all()
    seal(made.objects)
    made.record_run()
    return made


def all_objects(objects: StoreObjects) -> dict[str, bytes]:
    """Every object of a store by key, temporaries among them."""
    prefix = f"{objects.root}/"
    found = (str(path).removeprefix(prefix) for path in objects.fs.find(objects.root))
    return {key: objects.fs.cat_file(f"{objects.root}/{key}") for key in sorted(found)}


def flip(data: bytes, place: int, bit: int = 0) -> bytes:
    """`data` with one bit turned over."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


class Killed(BaseException):
    """The process died here."""


@dataclass(frozen=True, slots=True)
class Mortal(StoreObjects):
    """A store's objects in a process that dies right before or right after its n-th write."""

    step: int = 0
    after: bool = False
    writes: list[str] = field(default_factory=list, compare=False)

    def publish(self, key: str, data: bytes) -> bool:
        return self._live(key, lambda: StoreObjects.publish(self, key, data))

    def replace(self, key: str, data: bytes) -> None:
        self._live(key, lambda: StoreObjects.replace(self, key, data) or True)

    def _live(self, key: str, write: Callable[[], bool]) -> bool:
        self.writes.append(key)
        last = len(self.writes) == self.step
        if last and not self.after:
            raise Killed
        written = write()
        if last:
            raise Killed
        return written


def mortal(objects: StoreObjects, step: int, *, after: bool) -> Mortal:
    return Mortal(objects.uri, objects.fs, objects.root, step, after)


@dataclass(frozen=True, slots=True)
class Overtaken(StoreObjects):
    """A writer that others overtake, each right before one of its writes of `key`."""

    key: str = ""
    overtake: list[Callable[[], object]] = field(default_factory=list, compare=False)

    def publish(self, key: str, data: bytes) -> bool:
        self._meet(key)
        return StoreObjects.publish(self, key, data)

    def replace(self, key: str, data: bytes) -> None:
        self._meet(key)
        StoreObjects.replace(self, key, data)

    def _meet(self, key: str) -> None:
        if key == self.key and self.overtake:
            self.overtake.pop(0)()


def overtaken(objects: StoreObjects, key: str, *others: Callable[[], object]) -> Overtaken:
    return Overtaken(objects.uri, objects.fs, objects.root, key, list(others))
