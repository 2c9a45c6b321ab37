"""In what two stores differ, or two teachers of one: what they are, what is committed, what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.reading.reader import Store
from softcask.storage_schemas.codecs.base import check_claim
from softcask.storage_schemas.codecs.fidelity import divergence
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.manifest import TeacherManifest
from softcask.storage_schemas.views import ViewManifest

_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that is not the same; None where one side has none.

    Attributes:
        name: What it is, a path through nested values.
        a: Of the first.
        b: Of the second.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifferences:
    """Readable rows, compared by `sample_id`.

    Attributes:
        common: Rows that both have.
        only_a: Rows of the first alone.
        only_b: Rows of the second alone.
        other_content: Common rows with another content hash.
        other_label: Common rows with another label.
    """

    common: int
    only_a: int
    only_b: int
    other_content: int
    other_label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """What two teachers say of the same rows.

    Attributes:
        rows: Rows compared.
        temperature: T of KL(a || b).
        kl_mean: Its mean, in nats.
        kl_max: Its largest value.
        same_top: Share of rows with the same most probable class.
    """

    rows: int
    temperature: float
    kl_mean: float
    kl_max: float
    same_top: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherDifferences:
    """Two teachers, or one in two stores.

    Attributes:
        fields: What their names are pinned to, field by field.
        units: Units that both have committed with the same bytes.
        only_a: Units that the first alone has committed.
        only_b: Units that the second alone has committed.
        other_bytes: Units that both have committed with different bytes.
        divergence: Over rows that both have labelled; None where their classes or rows share nothing.
    """

    fields: tuple[Difference, ...]
    units: int
    only_a: int
    only_b: int
    other_bytes: int
    divergence: Divergence | None

    @property
    def equal(self) -> bool:
        """Whether one may stand for the other."""
        return not (self.fields or self.only_a or self.only_b or self.other_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDifferences:
    """Two stores.

    Attributes:
        classes: Classes by place.
        segments: Segments, field by field.
        views: What their views are pinned to, field by field.
        rows: Their rows.
        teachers_a: Teachers of the first alone.
        teachers_b: Teachers of the second alone.
        teachers: Those that both have, by name.
    """

    classes: tuple[Difference, ...]
    segments: tuple[Difference, ...]
    views: tuple[Difference, ...]
    rows: RowDifferences
    teachers_a: tuple[str, ...]
    teachers_b: tuple[str, ...]
    teachers: dict[str, TeacherDifferences]

    @property
    def equal(self) -> bool:
        """Whether students see the same in both."""
        rows = self.rows
        return not (
            self.classes
            or self.segments
            or self.views
            or self.teachers_a
            or self.teachers_b
            or rows.only_a + rows.only_b + rows.other_content + rows.other_label
            or any(not each.equal for each in self.teachers.values())
        )


def diff_stores(
    a: Store,
    b: Store,
    *,
    sample: int = 4096,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> StoreDifferences:
    """Compare two stores.

    Args:
        a: The first.
        b: The second.
        sample: Rows a teacher to compare what it says of, spread evenly; 0 compares none.
        temperature: T of the divergence.
        progress: Called after each block of rows with rows done and in all.

    Raises:
        StoreError: A codec makes no claim for this temperature.
        CorruptObject: An object is damaged.
    """
    both = sorted(set(a.teachers) & set(b.teachers))
    rows_a, rows_b = _common_rows(a, b)
    steps = _Steps(len(both), sample, progress)
    return StoreDifferences(
        classes=_differences(
            {str(n): name for n, name in enumerate(a.class_names)},
            {str(n): name for n, name in enumerate(b.class_names)},
        ),
        segments=_differences(_segments(a), _segments(b)),
        views=_differences(_views(a), _views(b)),
        rows=_row_differences(a, b, rows_a, rows_b),
        teachers_a=tuple(sorted(set(a.teachers) - set(b.teachers))),
        teachers_b=tuple(sorted(set(b.teachers) - set(a.teachers))),
        teachers={
            name: _teachers(_Side(a, name, rows_a), _Side(b, name, rows_b), sample, temperature, steps)
            for name in both
        },
    )


def diff_teachers(
    store: Store,
    a: str,
    b: str,
    *,
    sample: int = 4096,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherDifferences:
    """Compare two teachers of one store; see `diff_stores`.

    Raises:
        StoreError: No such teacher, or a codec that makes no claim for this temperature.
        CorruptObject: An object is damaged.
    """
    rows = np.arange(len(store.rows))
    steps = _Steps(1, sample, progress)
    return _teachers(_Side(store, a, rows), _Side(store, b, rows), sample, temperature, steps)


class _Steps:
    """Tells how far the comparison of rows has come."""

    def __init__(self, teachers: int, sample: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._progress = 0, teachers * sample, progress

    def add(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done))


@dataclass(frozen=True, slots=True)
class _Side:
    """A teacher of a store, and the numbers there of the rows that both sides have, in one order."""

    store: Store
    name: str
    rows_R: NDArray[np.int64]

    @property
    def manifest(self) -> TeacherManifest:
        return self.store.teacher(self.name)

    def labelled(self) -> NDArray[np.bool_]:
        """Which of the common rows `[R]` it has labelled."""
        store, rows = self.store, self.store.rows
        labelled = np.ones(len(rows), dtype=np.bool_)
        numbers = {segment.segment: number for number, segment in enumerate(store.segments)}
        for segment, index in store.missing_units(self.name):
            number = numbers[segment]
            first, stop = store.segments[number].unit_range(index)
            inside = (rows.positions >= first) & (rows.positions < stop)
            labelled &= ~((rows.segments == number) & inside)
        return np.asarray(labelled[self.rows_R])

    def units(self) -> dict[str, frozenset[tuple[str, int, str]]]:
        """Objects of each committed unit, by their places below the teacher."""
        commits = self.store.commits.filter(pc.equal(self.store.commits["teacher"], self.name))
        length = len(f"teachers/{self.name}/")
        return {
            unit: frozenset((each["key"][length:], each["size"], each["crc32c"]) for each in objects)
            for unit, objects in zip(commits["unit"].to_pylist(), commits["objects"].to_pylist(), strict=True)
        }


def _teachers(a: _Side, b: _Side, sample: int, temperature: float, steps: _Steps) -> TeacherDifferences:
    units_a, units_b = a.units(), b.units()
    both = units_a.keys() & units_b.keys()
    same = sum(units_a[unit] == units_b[unit] for unit in both)
    return TeacherDifferences(
        fields=_differences(_pinned(a.manifest), _pinned(b.manifest)),
        units=same,
        only_a=len(units_a) - len(both),
        only_b=len(units_b) - len(both),
        other_bytes=len(both) - same,
        divergence=_divergence(a, b, sample, temperature, steps),
    )


def _divergence(a: _Side, b: _Side, sample: int, temperature: float, steps: _Steps) -> Divergence | None:
    for side in (a, b):
        check_claim(side.store.codec(side.name), temperature, f"teacher {side.name!r} in {side.store.uri}")
    places = np.flatnonzero(a.labelled() & b.labelled())
    classes = a.manifest.num_classes
    if not sample or not len(places) or b.manifest.num_classes != classes:
        return None
    if a.store.class_names != b.store.class_names:
        return None
    places = places[np.unique(np.linspace(0, len(places) - 1, min(sample, len(places))).astype(np.int64))]
    kl, same = [], 0
    block = max(1, _BLOCK_VALUES // classes)
    for first in range(0, len(places), block):
        some = places[first : first + block]
        said_a, said_b = (s.store.logits_at(s.name, s.rows_R[some], temperature) for s in (a, b))
        kl.append(divergence(said_a, said_b, temperature))
        same += int((said_a.argmax(axis=1) == said_b.argmax(axis=1)).sum())
        steps.add(len(some))
    kl_R = np.concatenate(kl)
    return Divergence(
        rows=len(kl_R),
        temperature=temperature,
        kl_mean=float(kl_R.mean()),
        kl_max=float(kl_R.max()),
        same_top=same / len(kl_R),
    )


def _pinned(teacher: TeacherManifest) -> Any:
    pinned = teacher.pinned()
    # Named by content below the teacher, whose own name may be another.
    arrays = {name: record.crc32c for name, record in teacher.codec.arrays.items()}
    codec = {**pinned["codec"], "arrays": arrays}
    return canonical({**pinned, "codec": codec, "name": ""})


def _segments(store: Store) -> dict[str, dict[str, Any]]:
    names = ("first", "rows", "quarantined", "labelled", "unit_rows", "input_shape", "input_dtype")
    return {
        segment.segment: {
            **{name: segment.model_dump(mode="json").get(name) for name in names},
            "table": segment.table.crc32c,
        }
        for segment in store.segments
    }


def _views(store: Store) -> dict[str, Any]:
    return {str(number): view.pinned() | {"probe": _contents(view)} for number, view in store.views.items()}


def _contents(view: ViewManifest) -> dict[str, str]:
    return {probe.sample_id: probe.content for probe in view.probe}


def _common_rows(a: Store, b: Store) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the rows that both have, in each."""
    found = b.rows.find(a.rows.sample_ids.tolist())
    common = np.flatnonzero(found >= 0)
    return common, found[common]


def _row_differences(
    a: Store, b: Store, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]
) -> RowDifferences:
    return RowDifferences(
        common=len(rows_a),
        only_a=len(a.rows) - len(rows_a),
        only_b=len(b.rows) - len(rows_b),
        other_content=int((a.rows.content_hashes[rows_a] != b.rows.content_hashes[rows_b]).sum()),
        other_label=int((a.rows.labels[rows_a] != b.rows.labels[rows_b]).sum()),
    )


def _differences(a: Any, b: Any, name: str = "") -> tuple[Difference, ...]:
    """Values of nested mappings that are not equal."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return () if a == b else (Difference(name=name, a=a, b=b),)
    found: list[Difference] = []
    for key in dict.fromkeys((*a, *b)):
        found += _differences(a.get(key), b.get(key), f"{name}.{key}" if name else str(key))
    return tuple(found)
