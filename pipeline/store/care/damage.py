"""What `verify` found, and what can be done about each of it. Nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import Problem
from softcask.pipeline.store.catalog import Contents, generation_numbers
from softcask.pipeline.store.foreign_arrays import ForeignArrays
from softcask.pipeline.store.layout import unit_objects, zarr_metadata
from softcask.pipeline.store.receipts import read_commit
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import SoftcaskError
from softcask.storage_schemas.manifest import (
    Generation,
    ObjectRecord,
    SegmentManifest,
    TeacherManifest,
)

Action = Literal["restore", "receipt", "statistics", "label", "seal", "aside", "wait", "none"]
Candidates = Callable[[str], bytes | None]
Unit = tuple[str, str]

_PUT_BACK = "it cannot be made again: put it back from a copy of the store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What is to be done about one object.

    Attributes:
        problem: What is wrong with it.
        action: `restore` it from what it follows from; make the `receipt` or the `statistics` again from the
            unit's logits; `label` its unit again; `seal` the catalog anew; put it `aside`; `wait` until what
            it is judged by is whole; or `none` that would help.
        unit: (teacher, unit), where it is of one.
        data: What it is to hold, for `restore`.
        advice: What to do by hand, for `none`; what it waits for.
    """

    problem: Problem
    action: Action
    unit: Unit | None = None
    data: bytes | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All remedies of a store.

    Attributes:
        remedies: One a problem, in the order of keys.
        rebuild: Whether the newest generation is broken, so that the catalog is made from the receipts.
        broken: The newest of the broken generations; 0 where none is.
        labellers: Teachers that can label again; units of others are left as they are.
        views: In which views they can.
    """

    remedies: tuple[Remedy, ...]
    rebuild: bool
    broken: int
    labellers: frozenset[str]
    views: frozenset[int] = frozenset({0})

    def can_label(self, unit: Unit) -> bool:
        """Whether a unit (teacher, unit) can be labelled again."""
        return unit[0] in self.labellers and keys.parse_unit(unit[1])[1] in self.views

    def units(self, *actions: Action) -> list[Unit]:
        """Units with such a remedy, each once, in order."""
        return sorted({each.unit for each in self.remedies if each.unit and each.action in actions})

    @property
    def waiting(self) -> bool:
        """Whether some of it cannot be judged yet, so that nothing is to be sealed."""
        return any(each.action == "wait" for each in self.remedies)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to carry out."""
        return all(each.action in ("wait", "none") for each in self.remedies)


def diagnose(
    objects: StoreObjects,
    problems: Iterable[Problem],
    candidates: Candidates,
    *,
    labellers: frozenset[str] = frozenset(),
    views: frozenset[int] = frozenset({0}),
) -> Diagnosis:
    """Find a remedy for each problem.

    Args:
        objects: The store.
        problems: As `verify` reports them.
        candidates: What an object must have held that follows from a run's file and its rows, or None; it is
            taken if it is what was sealed.
        labellers: Teachers that can label again.
        views: In which views.
    """
    found = {problem.key: problem for problem in problems}
    generations = _readable(objects, generation_numbers(objects))
    broken = {number for number, each in generations.items() if _names_any(each, found)}
    broken |= {int(key.split("/")[1]) for key in found if key.endswith("/generation.json")}
    newest = max([*generations, *broken], default=0)
    ward = _Ward(objects, found, candidates, generations, labellers, views)
    return Diagnosis(
        remedies=tuple(ward.remedy(problem) for problem in found.values()),
        rebuild=newest in broken,
        broken=max(broken, default=0),
        labellers=labellers,
        views=views,
    )


class _Ward:
    """Knows what stands whole, to decide what can be made from it."""

    def __init__(
        self,
        objects: StoreObjects,
        problems: Mapping[str, Problem],
        candidates: Candidates,
        generations: Mapping[int, Generation],
        labellers: frozenset[str],
        views: frozenset[int],
    ) -> None:
        self._objects, self._problems, self._candidates = objects, problems, candidates
        self._labellers, self._views = labellers, views
        last = generations[max(generations)] if generations else None
        self._sealed = {record.key: record for record in last.manifests} if last else {}
        self._foreign = ForeignArrays(objects, self._sealed.values())
        self._contents = _whole_contents(objects)

    def remedy(self, problem: Problem) -> Remedy:
        """What is to be done about it."""
        if problem.kind == "unread":
            return _none(problem, "it could not be read: see to the filesystem, then repair again")
        match problem.key.split("/"):
            case ["catalog", _, table] if table.startswith("dropped-"):
                return _none(problem, _PUT_BACK)
            case ["catalog", *_]:
                return Remedy(problem=problem, action="seal")
            case ["runs", *_]:
                return Remedy(problem=problem, action="aside")
            case ["softcask.json"] | ["transfer_set", _, "segment.json" | "rows.parquet"] | ["views", _]:
                return self._restored(problem, self._candidates(problem.key))
            case ["teachers", _, "teacher.json" | "probe.parquet"] | ["teachers", _, "codec", _]:
                return self._restored(problem, self._candidates(problem.key))
            case ["teachers", _, "logits", _, _, *_, "zarr.json"]:
                return self._restored(problem, self._metadata(problem.key))
            case ["teachers", _, "logits" | "stats" | "commits", *_]:
                return self._of_unit(problem)
        return _none(problem, "softcask does not know it: see what it is")

    def _restored(self, problem: Problem, data: bytes | None) -> Remedy:
        record = self._record(problem.key)
        # What the newest generation does not name is believed only where it follows from what stands.
        free = problem.key == keys.ROOT or problem.key.endswith("zarr.json")
        if data is None or (record is None and not free):
            return _none(problem, _PUT_BACK)
        if record is not None and record != ObjectRecord.of(problem.key, data):
            return _none(problem, f"this run's file and rows give another one than was sealed; {_PUT_BACK}")
        return Remedy(problem=problem, action="restore", data=data)

    def _record(self, key: str) -> ObjectRecord | None:
        tables = {segment.table.key: segment.table for segment in self._contents.segments}
        return self._sealed.get(key) or tables.get(key)

    def _metadata(self, key: str) -> bytes | None:
        teacher, segment, view = self._place(key)
        return zarr_metadata(teacher, segment, view).get(key) if teacher and segment else None

    def _of_unit(self, problem: Problem) -> Remedy:
        """By what else of the unit is damaged: all can be made from its logits, and those by its teacher."""
        if first := self._first(*keys.owner(problem.key)):
            rows = first.endswith("/rows.parquet")  # all that can be made again of what others are judged by
            advice = f"it is judged by {first}, which must be whole first"
            return Remedy(problem=problem, action="wait" if rows else "none", advice=advice)
        unit, (teacher, segment, view) = unit_of(problem.key), self._place(problem.key)
        if teacher is not None and segment is not None and self._is_foreign(teacher, segment, view):
            return _none(problem, f"its arrays were written by another tool, and only read here; {_PUT_BACK}")
        if unit is None or teacher is None or segment is None:
            return Remedy(problem=problem, action="aside")
        index = keys.parse_unit(unit[1])[2]
        if index >= segment.units:
            return Remedy(problem=problem, action="aside")
        logits = {part.key for part in unit_objects(teacher, segment, view, index)}
        stats = keys.stats_part(teacher.name, segment.segment, view, index)
        action = self._action(teacher, unit[1], logits, stats)
        if action == "label" and teacher.name not in self._labellers:
            return _none(problem, f"teacher {teacher.name!r} must label it again, and this run has none such")
        if action == "label" and view not in self._views:
            return _none(problem, f"view {view} must be labelled again, and this run's [views] has none such")
        return Remedy(problem=problem, action=action, unit=unit)

    def _action(self, teacher: TeacherManifest, unit: str, logits: set[str], stats: str) -> Action:
        if self._is_whole(teacher, unit):
            return "seal"  # it was made anew, and the catalog names what stood before
        receipt = keys.commit(teacher.name, unit) in self._problems
        if logits & self._problems.keys() or (receipt and stats in self._problems):
            return "label"
        return "receipt" if receipt else "statistics"

    def _is_foreign(self, teacher: TeacherManifest, segment: SegmentManifest, view: int) -> bool:
        try:
            return bool(self._foreign.of(teacher, segment, view))
        except SoftcaskError:  # a foreign one that cannot be read
            return True

    def _is_whole(self, teacher: TeacherManifest, unit: str) -> bool:
        try:
            commit = read_commit(self._objects, teacher, unit)
            for record in commit.objects if commit else ():
                self._objects.read_recorded(record)
        except SoftcaskError:
            return False
        return commit is not None

    def _first(self, teacher: str | None, segment: str | None) -> str | None:
        """A damaged object that others of this teacher and segment are judged by."""
        for key in self._problems:
            match key.split("/"):
                case ["teachers", name, "teacher.json"] | ["teachers", name, "codec", _] if name == teacher:
                    return key
                case ["transfer_set", name, _] if name == segment:
                    return key
        return None

    def _place(self, key: str) -> tuple[TeacherManifest | None, SegmentManifest | None, int]:
        name, segment_name = keys.owner(key)
        segments = {segment.segment: segment for segment in self._contents.segments}
        unit = unit_of(key)
        view = keys.parse_unit(unit[1])[1] if unit else keys.view_of(key)
        teacher = self._contents.teachers.get(name) if name else None
        return teacher, segments.get(segment_name) if segment_name else None, view


def unit_of(key: str) -> Unit | None:
    """(teacher, unit) of a receipt, a shard, a part or statistics; None of what is no unit's."""
    match key.split("/"):
        case ["teachers", teacher, "commits", receipt] if keys.is_unit(name := receipt.removesuffix(".json")):
            return teacher, name
        case ["teachers", teacher, "logits" | "stats", segment, view, *rest] if rest:
            text = rest[2] if len(rest) > 2 else rest[0].removeprefix("part-").removesuffix(".parquet")
            name = f"{segment}-{view}-{text:0>8}"
            return (teacher, name) if keys.is_unit(name) else None
    return None


def _none(problem: Problem, advice: str) -> Remedy:
    return Remedy(problem=problem, action="none", advice=advice)


def _names_any(generation: Generation, problems: Mapping[str, Problem]) -> bool:
    named = {keys.generation(generation.generation), *(record.key for record in generation.tables)}
    return bool(named & problems.keys())


def _readable(objects: StoreObjects, numbers: Iterable[int]) -> dict[int, Generation]:
    found = {}
    for number in numbers:
        key = keys.generation(number)
        try:
            found[number] = Generation.from_bytes(objects.read(key), key)
        except SoftcaskError:
            continue
    return found


def _whole_contents(objects: StoreObjects) -> Contents:
    """Manifests that can be read; those that cannot are problems of their own."""
    segments, teachers = [], {}
    for name in objects.parts("transfer_set"):
        key = keys.segment_manifest(name)
        try:
            segments.append(SegmentManifest.from_bytes(objects.read(key), key))
        except SoftcaskError:
            continue
    for name in objects.parts("teachers"):
        key = keys.teacher_manifest(name)
        try:
            teachers[name] = TeacherManifest.from_bytes(objects.read(key), key)
        except SoftcaskError:
            continue
    return Contents(segments=tuple(segments), teachers=teachers)
