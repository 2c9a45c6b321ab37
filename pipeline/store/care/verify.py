"""Is the store right? Reads every object that its documents speak of and checks it against what they say.

Nothing is trusted and nothing stops the walk: each object that is missing, damaged or not what its manifest
says is one problem, named by its key. Objects that no document speaks of (left by a killed writer) are
counted; they do no harm.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.checks import (
    check_decoded,
    check_equal,
    check_logits,
    check_receipt,
    check_stats,
    checked_rows,
    readable_rows,
)
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.foreign_arrays import ForeignArrays, ForeignUnit
from softcask.pipeline.store.layout import Shard, unit_objects, zarr_metadata
from softcask.pipeline.store.reading.foreign import decode_foreign
from softcask.storage_schemas import keys, npy, tables
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.errors import CorruptObject, SoftcaskError, StoreAccess, StoreNotFound
from softcask.storage_schemas.manifest import (
    Generation,
    Manifest,
    ObjectRecord,
    Pointer,
    RootManifest,
    SegmentManifest,
    SourceFacts,
    TeacherManifest,
    UnitCommit,
)
from softcask.storage_schemas.runs import RunClaim, RunProgress, RunRecord
from softcask.storage_schemas.views import ViewManifest

_THREADS = 8
_NAME = keys.NAME_PATTERN.strip("^$")
_SEGMENT = re.compile(rf"transfer_set/({_NAME})/segment\.json")
_TEACHER = re.compile(rf"teachers/({_NAME})/(?:teacher|commits/[^/]+)\.json")
_RECEIPT = re.compile(rf"teachers/({_NAME})/commits/([^/]+)\.json")
_RUN = re.compile(rf"runs/({_NAME})/run\.json")
_PROGRESS = re.compile(rf"runs/({_NAME})/progress\.json")
_CLAIM = re.compile(r"runs/claims/([0-9]{8})\.json")
_VIEW = re.compile(r"views/v([0-9]{4})\.json")
_SOURCE = re.compile(rf"runs/sources/({_NAME})\.json")
_GENERATION = re.compile(r"catalog/([0-9]{8})/generation\.json")

Document = TypeVar("Document", bound=Manifest)
_Check = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One object that is not what the store says.

    Attributes:
        key: The object.
        message: What was found and what was expected.
        kind: Whether it is gone, is not what it should be, or could not be read, in which case nothing is
            known of it.
    """

    key: str
    message: str
    kind: Literal["missing", "damaged", "unread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a walk through a store found.

    Attributes:
        objects: Objects checked, missing ones among them.
        bytes: Bytes read to check them.
        problems: One an object, in the order of keys; empty where all is right.
        orphans: Objects that no document speaks of.
    """

    objects: int
    bytes: int
    problems: tuple[Problem, ...]
    orphans: int


def verify(uri: str, *, progress: Callable[[int, int, int], None] | None = None) -> VerifyReport:
    """Check every object of a store: it stands, its bytes are those committed, and it decodes.

    Args:
        uri: A local path or an fsspec URL.
        progress: Called after each object with objects done, objects in all and bytes done.

    Raises:
        StoreNotFound: There is nothing of a store at `uri`.
        StoreAccess: No filesystem for this protocol is installed.
    """
    objects = StoreObjects.at(uri)
    present = objects.all_keys()
    walk = _Walk(objects, present)
    walk.run()
    if not present & walk.checks.keys():
        raise StoreNotFound(f"there is no softcask store at {uri} (no {keys.ROOT} in it); check the path")
    wanted = sorted(key for key in walk.checks if key in present or key in walk.required)
    size = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = pool.map(partial(_check_object, objects, walk), wanted)
        for done, (key, read, error) in enumerate(checked, start=1):
            size += read
            if error is not None:
                walk.problem(key, error)
            if progress is not None:
                progress(done, len(wanted), size)
    return VerifyReport(
        objects=len(wanted),
        bytes=size,
        problems=tuple(problem for _, problem in sorted(walk.problems.items())),
        orphans=len(present - walk.checks.keys()),
    )


class _Walk:
    """Gathers from the store's documents what must stand, and how each object is checked."""

    def __init__(self, objects: StoreObjects, present: set[str]) -> None:
        self.checks: defaultdict[str, list[_Check]] = defaultdict(list)
        self.required: set[str] = set()
        self.problems: dict[str, Problem] = {}
        self._objects = objects
        self._present = present
        self._segments: dict[str, SegmentManifest] = {}
        self._readable: dict[str, pa.Table] = {}
        self._teachers: dict[str, TeacherManifest] = {}
        self._codecs: dict[str, Codec] = {}
        self._records: set[ObjectRecord] = set()
        self._superseded: list[tuple[str, Any]] = []
        self._foreign = ForeignArrays(objects, ())

    def run(self) -> None:
        """Walk all documents: runs, rows, teachers, the catalog, receipts."""
        self._document(RootManifest, keys.ROOT)
        for key, (run,) in self._matching(_RUN):
            self._named(key, self._document(RunRecord, key), "run", run)
        for key, (run,) in self._matching(_PROGRESS):
            self._named(key, self._document(RunProgress, key), "run", run)
        for key, (number,) in self._matching(_CLAIM):
            self._named(key, self._document(RunClaim, key), "number", int(number))
        for key, (name,) in self._matching(_SOURCE):
            self._named(key, self._document(SourceFacts, key), "segment", name)
        for key, (number,) in self._matching(_VIEW):
            self._named(key, self._document(ViewManifest, key), "view", int(number))
        for key, (name,) in self._matching(_SEGMENT):
            self._guarded(key, self._segment, key, name)
        for name in sorted({name for _, (name, *_) in self._matching(_TEACHER)}):
            self._guarded(keys.teacher_manifest(name), self._teacher, name)
        self._catalog()
        receipts = list(self._matching(_RECEIPT))
        with ThreadPoolExecutor(_THREADS) as pool:
            commits = list(pool.map(lambda found: self._document(UnitCommit, found[0]), receipts))
        for (key, (name, unit)), commit in zip(receipts, commits, strict=True):
            self._guarded(key, self._receipt, key, name, unit, commit)
        for key, written in self._superseded:
            if written.get("key") not in self.checks:
                self._guarded(key, self._claim_written, written)

    def problem(self, key: str, error: Exception) -> None:
        """Note what is wrong with an object; the first finding counts."""
        self.problems.setdefault(key, _problem(key, error))

    def _matching(self, pattern: re.Pattern[str]) -> Iterable[tuple[str, tuple[str, ...]]]:
        for key in sorted(self._present):
            if match := pattern.fullmatch(key):
                yield key, match.groups()

    def _guarded(self, key: str, step: Callable[..., None], *arguments: Any) -> None:
        """Run one step; whatever a malformed document makes of it is that document's problem."""
        try:
            step(*arguments)
        except Exception as error:
            self.problem(key, error)

    def _claim(self, key: str, *checks: _Check, required: bool = True) -> None:
        self.checks[keys.checked_key(key)] += checks
        if required:
            self.required.add(key)

    def _claim_record(self, record: ObjectRecord) -> None:
        if record not in self._records:
            self._records.add(record)
            self._claim(record.key, record.check)

    def _document(self, kind: type[Document], key: str) -> Document | None:
        self._claim(key, partial(kind.from_bytes, key=key))
        try:
            return kind.from_bytes(self._objects.read(key), key)
        except Exception as error:
            self.problem(key, error)
            return None

    def _named(self, key: str, document: Manifest | None, field: str, expected: object) -> None:
        if document is not None and (found := getattr(document, field)) != expected:
            self.problem(key, CorruptObject(f"{key} is the document of {found!r}; it was moved or copied"))

    def _segment(self, key: str, name: str) -> None:
        segment = self._document(SegmentManifest, key)
        self._named(key, segment, "segment", name)
        if segment is None:
            return
        self._segments[name] = segment
        self._claim_record(segment.table)
        self._claim(segment.table.key, partial(checked_rows, segment))
        self._guarded(segment.table.key, self._rows, segment)

    def _rows(self, segment: SegmentManifest) -> None:
        rows = checked_rows(segment, self._objects.read_recorded(segment.table))
        self._readable[segment.segment] = readable_rows(rows)

    def _teacher(self, name: str) -> None:
        key = keys.teacher_manifest(name)
        teacher = self._document(TeacherManifest, key)
        self._named(key, teacher, "name", name)
        if teacher is None:
            return
        self._teachers[name] = teacher
        with contextlib.suppress(CorruptObject):  # of an array, which is a problem of its own
            self._codecs[name] = load_codec(self._objects, teacher, fresh=True)
        probe = keys.probe(name)
        self._claim(probe, partial(tables.from_bytes, schema=tables.PROBE, key=probe))
        for record in teacher.codec.arrays.values():
            self._claim_record(record)
            self._claim(record.key, partial(npy.from_bytes, key=record.key))
        for segment in self._segments.values():
            self._claim_metadata(teacher, segment, 0, required=False)

    def _claim_metadata(
        self, teacher: TeacherManifest, segment: SegmentManifest, view: int, *, required: bool
    ) -> None:
        for key, document in zarr_metadata(teacher, segment, view).items():
            check = partial(self._check_metadata, teacher, segment, view, document, key)
            self._claim(key, check, required=required)

    def _check_metadata(
        self,
        teacher: TeacherManifest,
        segment: SegmentManifest,
        view: int,
        document: bytes,
        key: str,
        data: bytes,
    ) -> None:
        """It is what follows from the manifests; or a foreign one that is read, as the catalog records it.

        Who writes arrays anew may write down in their group what they are, too, which nobody reads.
        """
        foreign, group = self._foreign.of(teacher, segment, view), keys.view_name(view)
        if (name := key.split("/")[-2]) not in foreign and not (foreign and name == group):
            check_equal(document, key, data)

    def _catalog(self) -> None:
        numbers = {int(number) for _, (number,) in self._matching(_GENERATION)}
        # A pointer may be lost or behind: who moves it can die. What it names may not be missing.
        pointer = None
        if keys.CATALOG_POINTER in self._present:
            pointer = self._document(Pointer, keys.CATALOG_POINTER)
        newest = max([*numbers, pointer.generation if pointer else 0])
        # Old ones may be taken away, from the oldest on.
        first = min([*numbers, newest])
        gap = next((number for number in range(first, newest + 1) if number not in numbers), newest)
        current: Generation | None = None
        for number in sorted({*numbers, gap} - {0}, reverse=True):
            key = keys.generation(number)
            generation = self._document(Generation, key)
            self._named(key, generation, "generation", number)
            if generation is not None:
                if current is None:
                    self._foreign = ForeignArrays(self._objects, generation.manifests)
                self._guarded(key, self._generation, key, generation, current or generation)
                current = current or generation

    def _generation(self, key: str, generation: Generation, newest: Generation) -> None:
        dropped = generation.dropped.rows
        for record in (*generation.manifests, *generation.tables, *((dropped,) if dropped else ())):
            self._guarded(key, self._claim_record, record)
        if dropped is not None:
            self._claim(dropped.key, partial(tables.from_bytes, schema=tables.DROPPED, key=dropped.key))
        for record in generation.tables:
            if generation is newest or record not in newest.tables:
                self._guarded(record.key, self._commits, record, generation is newest)

    def _commits(self, record: ObjectRecord, newest: bool) -> None:
        data = self._objects.read_recorded(record)
        for row in tables.from_bytes(data, tables.COMMITS, record.key).to_pylist():
            for written in (row["receipt"], *row["objects"]):
                if newest:
                    self._guarded(record.key, self._claim_written, written)
                else:  # it may have been made anew since, in other bytes
                    self._superseded.append((record.key, written))

    def _claim_written(self, written: Any) -> None:
        self._claim_record(ObjectRecord.model_validate(written))

    def _receipt(self, key: str, name: str, unit: str, commit: UnitCommit | None) -> None:
        segment_name, view, index = keys.parse_unit(unit)
        if commit is None:
            return
        for record in commit.objects:
            self._claim_record(record)
        teacher, segment = self._teachers.get(name), self._segments.get(segment_name)
        if segment is None and keys.segment_manifest(segment_name) not in self._present:
            self._document(SegmentManifest, keys.segment_manifest(segment_name))
        if teacher is None or segment is None:
            return
        check_receipt(commit, teacher, segment, key)
        if view and (document := keys.view_manifest(view)) not in self._present:
            self._document(ViewManifest, document)
        self._claim_metadata(teacher, segment, view, required=True)
        rows = self._readable.get(segment_name)
        part = rows.slice(commit.start, commit.stop - commit.start) if rows is not None else None
        codec, expected = self._codecs.get(name), set()
        foreign = {
            unit.array.column.name: unit for unit in self._foreign.units(teacher, segment, view, index)
        }
        for unit_ in foreign.values():
            records = unit_.records(commit.objects)
            expected |= {record.key for record in records}
            where = min((record.key for record in records), default=key)
            self._claim(where, partial(self._check_foreign, unit_, records, commit, part))
        for logits in unit_objects(teacher, segment, view, index):
            if isinstance(logits, Shard) and logits.layout.column.name in foreign:
                continue
            expected.add(logits.key)
            if codec is not None:
                self._claim(logits.key, partial(check_logits, logits, codec, commit, part, logits.key))
        if teacher.stats:
            expected.add(stats := keys.stats_part(name, segment_name, view, index))
            self._claim(stats, partial(check_stats, commit, part, stats))
        if (found := {record.key for record in commit.objects}) != expected:
            raise CorruptObject(f"{key} records the objects {sorted(found)}, expected {sorted(expected)}")

    def _check_foreign(
        self,
        unit: ForeignUnit,
        records: Iterable[ObjectRecord],
        commit: UnitCommit,
        rows: pa.Table | None,
        _: bytes,
    ) -> None:
        try:
            objects = {each.key: self._objects.read_recorded(each) for each in records}
        except SoftcaskError:  # of one of them, which is a problem of its own
            return
        values = decode_foreign(unit, {key: np.frombuffer(data, np.uint8) for key, data in objects.items()})
        if rows is not None:
            check_decoded(unit.array.column, values, commit, rows["readable"].to_numpy(), unit.folder)


def _check_object(objects: StoreObjects, walk: _Walk, key: str) -> tuple[str, int, Exception | None]:
    """(key, bytes read, what is wrong or None) of one object; damage of any kind ends as an error."""
    data = b""
    try:
        data = objects.read(key)
        for check in walk.checks[key]:
            check(data)
    except Exception as error:
        return key, len(data), error
    return key, len(data), None


def _problem(key: str, error: Exception) -> Problem:
    if isinstance(error, StoreNotFound):
        return Problem(key=key, message=f"{key} is missing", kind="missing")
    if isinstance(error, SoftcaskError):
        unread = isinstance(error, StoreAccess)
        return Problem(key=key, message=str(error), kind="unread" if unread else "damaged")
    message = f"{key} cannot be made sense of: {type(error).__name__}: {error}"
    return Problem(key=key, message=message, kind="damaged")
