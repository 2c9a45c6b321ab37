"""Fill a teacher's entry with logits that no pass makes: read from others' files, or derived from entries.

The same units, receipts and generations as a pass leaves behind: killed at any moment, the same call goes on
with what is not committed.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.pinning import pin_without_model, publish_metadata
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import refuse_dropped
from softcask.pipeline.store.codecs import load_codec, publish_codec
from softcask.pipeline.store.reading.reader import Store
from softcask.pipeline.store.receipts import committed_units
from softcask.pipeline.store.rows import UnitRows, read_rows
from softcask.pipeline.store.writing.commit import commit_encoded
from softcask.pipeline.store.writing.encoding import EncodedUnit, UnitEncoder
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas.absent import Absent, without_absent
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.manifest import Fidelity, SegmentManifest, TeacherManifest

Encode = Callable[[NDArray[np.int64]], EncodedUnit]
"""A unit's rows `[R]`, by number in the store, as they are to be kept; where a number is -1 the row was
dropped, and nothing is to be known of it."""
LogitsOf = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Float32 logits `[B, C]` of rows of the store, by number; finite, but of absent classes."""

_BATCH_BYTES = 16 << 20
_VERSIONED = ("softcask", "numpy", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What a call did.

    Attributes:
        teacher: Name of the entry.
        codec: How its logits are kept.
        units: Units it has now.
        new_units: Units that this call committed.
        rows: Rows that it has logits of, in units that this call committed.
        bytes: Bytes of all its objects.
        generation: The sealed generation that has it.
    """

    teacher: str
    codec: str
    units: int
    new_units: int
    rows: int
    bytes: int
    generation: int


def entry_manifest(
    objects: StoreObjects,
    name: str,
    *,
    kind: Literal["imported", "derived"],
    num_classes: int,
    codec: Codec,
    fingerprint: Mapping[str, Any],
    recorded: Mapping[str, Any],
    expected: tuple[Fidelity, ...] = (),
    stats: bool = True,
    absent: Absent = (),
) -> TeacherManifest:
    """What an entry's name is to be pinned to; what its codec keeps once is put into the store."""
    spec = publish_codec(objects, name, codec)
    if codec.container == "zarr" and objects.local is None:
        spec = spec.model_copy(update={"compression": "blosc"})
    return TeacherManifest(
        name=name,
        kind=kind,
        role="member",
        num_classes=num_classes,
        absent_classes=absent,
        batch_size=_batch_rows(num_classes),
        codec=spec,
        expected_fidelity=expected,
        stats=stats,
        fingerprint=canonical(fingerprint),
        recorded={"versions": _versions(), **recorded},
    )


def fill_entry(
    store: Store,
    wanted: TeacherManifest,
    encode: Encode,
    *,
    views: Mapping[int, Encode] | None = None,
    objects: StoreObjects | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Commit every unit of an entry that is not committed yet, and seal the store.

    Args:
        store: As readers see it, opened with `allow_partial`.
        wanted: What the entry's name is pinned to.
        encode: Its units.
        views: Those of views beside the rows as they are, by the number of the view.
        objects: The store's objects, if not through `store.objects`.
        progress: Called with rows done and rows in all.

    Raises:
        ManifestMismatch: The name belongs to another teacher.
        StoreError: The name was dropped, or the filesystem refused.
    """
    objects = objects or store.objects
    refuse_dropped(objects, [wanted.name])
    encode_of = {0: encode, **(views or {})}
    pin_without_model(objects, wanted, store.segments, views=tuple(encode_of))
    committed = committed_units(objects, wanted.name)
    done, new_rows, new_units = 0, 0, 0
    total = len(encode_of) * sum(segment.rows for segment in store.segments)
    for view, (number, segment) in product(encode_of, enumerate(store.segments)):
        if view:
            publish_metadata(objects, wanted, segment, view)
        for unit in _units(objects, segment, view):
            if unit.unit not in committed:
                encoded = encode_of[view](_numbers(store, number, unit))
                new_rows += commit_encoded(objects, wanted, unit, encoded).rows
                new_units += 1
            done += len(unit.sample_ids)
            if progress is not None:
                progress(done, total)
    generation = seal(objects)
    held = generation.teachers[wanted.name]
    return Filled(
        teacher=wanted.name,
        codec=wanted.codec.name,
        units=held.units,
        new_units=new_units,
        rows=new_rows,
        bytes=held.bytes,
        generation=generation.generation,
    )


def encoding(objects: StoreObjects, wanted: TeacherManifest, logits_of: LogitsOf) -> Encode:
    """Units made of logits, a batch at a time; in place of a row that was dropped stands one of zeros."""
    codec = load_codec(objects, wanted)

    def encode(numbers_R: NDArray[np.int64]) -> EncodedUnit:
        encoder = UnitEncoder(codec, rows=len(numbers_R), num_classes=wanted.stored_classes)
        for first in range(0, len(numbers_R), step := _batch_rows(wanted.num_classes)):
            logits_BC = _logits(numbers_R[first : first + step], logits_of, wanted.num_classes)
            encoder.add(without_absent(logits_BC, wanted.absent_classes))
        return encoder.finish()

    return encode


def _batch_rows(num_classes: int) -> int:
    return max(1, _BATCH_BYTES // (4 * num_classes))


def _units(objects: StoreObjects, segment: SegmentManifest, view: int) -> Iterator[UnitRows]:
    """All rows of a segment by unit, as they were indexed."""
    table = read_rows(objects, segment)
    return (UnitRows.of(segment, table, view, index) for index in range(segment.units))


def _numbers(store: Store, segment: int, unit: UnitRows) -> NDArray[np.int64]:
    """The store's numbers of a unit's readable rows, -1 where a row was dropped."""
    start, stop = unit.segment.unit_range(unit.index)
    first, end = np.searchsorted(store.rows.segments, [segment, segment + 1])
    low, high = first + np.searchsorted(store.rows.positions[first:end], [start, stop])
    numbers_n = np.full(stop - start, -1, dtype=np.int64)
    numbers_n[store.rows.positions[low:high] - start] = np.arange(low, high)
    return numbers_n[unit.readable]


def _logits(numbers_B: NDArray[np.int64], logits_of: LogitsOf, num_classes: int) -> NDArray[np.float32]:
    seen_B = numbers_B >= 0
    if seen_B.all():
        return logits_of(numbers_B)
    logits_BC = np.zeros((len(numbers_B), num_classes), dtype=np.float32)
    logits_BC[seen_B] = logits_of(numbers_B[seen_B])
    return logits_BC


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}}
