"""Which objects a unit that is planned may come to have: whoever labels it adopts what stands there."""

from __future__ import annotations

from functools import cached_property

from softcask.pipeline.store.catalog import Contents
from softcask.pipeline.store.layout import unit_objects, zarr_metadata
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest


class PlannedKeys:
    """Keys that a run over these contents may write or adopt; asked one by one, never listed."""

    def __init__(self, contents: Contents) -> None:
        """Of these teachers and segments, in every view."""
        self._teachers = contents.teachers
        self._segments = {segment.segment: segment for segment in contents.segments}
        self._views = contents.views

    def __contains__(self, key: str) -> bool:
        """Whether a planned unit, its teacher or its segment has an object of this key."""
        if key in self._once:
            return True
        match key.split("/"):
            case ["teachers", name, "logits" | "stats", segment, view, *rest] if rest:
                teacher, rows = self._teachers.get(name), self._segments.get(segment)
                number = _view(view)
                if teacher is None or rows is None or number is None:
                    return False
                return key in _keys_of(teacher, rows, number, _index(rest))
        return False

    @cached_property
    def _once(self) -> set[str]:
        """What is there once a teacher or a segment."""
        found: set[str] = set()
        for segment in self._segments:
            found |= {keys.segment_manifest(segment), keys.segment_rows(segment), keys.source_facts(segment)}
        found |= {keys.view_manifest(view) for view in self._views}
        for name, teacher in self._teachers.items():
            found |= {keys.teacher_manifest(name), keys.probe(name)}
            found |= {record.key for record in teacher.codec.arrays.values()}
        return found


def _keys_of(teacher: TeacherManifest, segment: SegmentManifest, view: int, index: int | None) -> set[str]:
    """Metadata of the arrays, and the objects of one unit."""
    found = set(zarr_metadata(teacher, segment, view))
    if index is not None and index < segment.units:
        found |= {part.key for part in unit_objects(teacher, segment, view, index)}
        found.add(keys.stats_part(teacher.name, segment.segment, view, index))
    return found


def _view(name: str) -> int | None:
    digits = name.removeprefix("v")
    return int(digits) if len(digits) == 4 and digits.isascii() and digits.isdigit() else None


def _index(rest: list[str]) -> int | None:
    """Number of the unit in `ARRAY/c/INDEX/0` or `part-INDEX.parquet`."""
    text = rest[2] if len(rest) > 2 else rest[0].removeprefix("part-").removesuffix(".parquet")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
