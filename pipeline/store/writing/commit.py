"""Commit a unit: its objects published whole, its receipt last. That the receipt exists is the commit.

Execution may happen more than once (a killed worker, two drivers, a straggler run twice); publication
happens once. Who finds a name taken adopts what stands there, so that receipts always describe the bytes
that are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.layout import UnitObject, unit_objects
from softcask.pipeline.store.receipts import read_commit
from softcask.pipeline.store.rows import UnitRows
from softcask.pipeline.store.writing.encoding import EncodedUnit, encode_unit
from softcask.pipeline.store.writing.publishing import publish_table
from softcask.storage_schemas import keys
from softcask.storage_schemas.absent import in_all_classes, present_classes
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import canonical, differences, digest
from softcask.storage_schemas.manifest import (
    ObjectRecord,
    TeacherManifest,
    UnitCommit,
)
from softcask.storage_schemas.stats import stats_table

_ONE_TEACHER = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""By the dtype that a teacher computes in: how far any value of two passes of it may be apart, in standard
deviations of its logits. What other devices and kernels do to one set of weights, as the probe allows it."""

_BLOCK_ROWS, _BLOCK_VALUES = 2048, 1 << 20
"""Rows decoded together: so many, or of few classes as many as make so many logits."""
_ROUNDS = 5
"""Attempts to end a race over damaged objects; each ends in one as a rule."""


def commit_unit(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, logits_RC: NDArray[np.float32]
) -> UnitCommit:
    """Encode the logits of a unit's readable rows `[R, C]` and commit them; see `commit_encoded`."""
    return commit_encoded(objects, teacher, rows, encode_unit(load_codec(objects, teacher), logits_RC))


def commit_encoded(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, encoded: EncodedUnit
) -> UnitCommit:
    """The receipt of a unit, once it is committed by whomever; see `commit_once`."""
    return commit_once(objects, teacher, rows, encoded)[0]


def commit_once(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, encoded: EncodedUnit
) -> tuple[UnitCommit, bool]:
    """Publish the columns of a unit's readable rows, and write the receipt.

    Returns:
        The receipt in the store, and whether it is this call's: another writer may have got there first.

    Raises:
        ManifestMismatch: The teacher's name was pinned to something else meanwhile.
        StoreAccess: The filesystem refused.
        CorruptObject: The filesystem gives back other bytes than it took.
        Whatever is raised, nothing of this unit counts as committed by this call.
    """
    for _ in range(_ROUNDS):
        # What a receipt describes is not to be touched any more, least of all by a pass that differs from it.
        standing = read_commit(objects, teacher, rows.unit)
        if standing is not None and _stand(objects, standing.objects):
            _refuse_if_pinned_anew(objects, teacher)
            return standing, False
        receipt, fresh = _publish_objects(objects, teacher, rows, encoded)
        # Names that were taken may have been mended, by several writers at once. Each goes on until the
        # receipt that stands describes the objects that stand, whoever put them there.
        if not fresh and not _stand(objects, receipt.objects):
            continue
        _refuse_if_pinned_anew(objects, teacher)
        standing = _put_receipt(objects, teacher, receipt)
        _take_back_if_pinned_anew(objects, teacher, rows.unit)
        if fresh or _stand(objects, standing.objects):
            return standing, standing is receipt
    raise CorruptObject(
        f"unit {rows.unit} of teacher {teacher.name!r}: {objects.uri} did not give back in {_ROUNDS} "
        "attempts the bytes that were written to it. Look at the disk or the filesystem, then run again."
    )


def _publish_objects(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, encoded: EncodedUnit
) -> tuple[UnitCommit, bool]:
    """A receipt of the unit's objects, and whether all their names were free."""
    records, columns, fresh = _publish_columns(objects, teacher, rows, encoded.columns)
    top_R = in_all_classes(encoded.top_R, teacher.num_classes, teacher.absent_classes)
    correct_R = top_R == rows.labels[rows.readable]
    if teacher.stats:
        stats = unit_stats(objects, teacher, rows, columns)
        key = keys.stats_part(teacher.name, rows.segment.segment, rows.view, rows.index)
        record, was_free = publish_table(objects, key, stats)
        records, fresh = [*records, record], fresh and was_free
        # What stands may be another pass's, which may see a tie otherwise.
        top_R = pc.list_element(stats["top_classes"], 0).to_numpy()
        correct_R = top_R == rows.labels[rows.readable]
    return _receipt(teacher, rows, columns, int(correct_R.sum()), encoded, records), fresh


def _refuse_if_pinned_anew(objects: StoreObjects, teacher: TeacherManifest) -> None:
    """A name is free until a first unit is committed, so it may have changed hands while this one was run."""
    key = keys.teacher_manifest(teacher.name)
    if lines := differences(canonical(teacher.pinned()), _pinned(objects.read(key), key)):
        raise ManifestMismatch(
            f"another run has pinned teacher {teacher.name!r} of {objects.uri} to something else:\n  "
            + "\n  ".join(lines)
            + "\nGive one of the two a new name. Nothing of this unit was committed."
        )


@lru_cache(maxsize=64)
def _pinned(data: bytes, key: str) -> Any:
    """What a manifest pins its name to; asked for twice a unit, of bytes that hardly ever change."""
    return canonical(TeacherManifest.from_bytes(data, key).pinned())


def _take_back_if_pinned_anew(objects: StoreObjects, teacher: TeacherManifest, unit: str) -> None:
    """Who commits writes a receipt, then looks at the pin; who pins anew writes it, then looks for receipts.

    Of two that meet at least one sees the other and takes back what it wrote.
    """
    try:
        _refuse_if_pinned_anew(objects, teacher)
    except ManifestMismatch:
        if read_commit(objects, teacher, unit) is not None:
            objects.remove(keys.commit(teacher.name, unit))
        raise


def _put_receipt(objects: StoreObjects, teacher: TeacherManifest, receipt: UnitCommit) -> UnitCommit:
    """Publish the receipt; or the one that stands, if what it describes stands too."""
    key = keys.commit(teacher.name, receipt.unit)
    if objects.publish(key, receipt.to_bytes()):
        return receipt
    standing = read_commit(objects, teacher, receipt.unit)
    if standing is not None and (standing.objects == receipt.objects or _stand(objects, standing.objects)):
        return standing
    objects.replace(key, receipt.to_bytes())
    return receipt


def _stand(objects: StoreObjects, records: Sequence[ObjectRecord]) -> bool:
    try:
        for record in records:
            objects.read_recorded(record)
    except CorruptObject:
        return False
    return True


def _publish_columns(
    objects: StoreObjects,
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
) -> tuple[list[ObjectRecord], dict[str, NDArray[Any]], bool]:
    """Publish the unit's objects; where one stands already and is this teacher's, that one counts.

    Returns:
        Records of the objects, the values in them, and whether all their names were free.
    """
    parts = unit_objects(teacher, rows.segment, rows.view, rows.index)
    exact = all(column.dtype.kind == "f" for part in parts for column in part.columns)
    records, final, fresh = [], dict(columns), True
    for part in parts:
        data = part.encode(columns, rows.readable)
        if not objects.publish(part.key, data):
            fresh, standing = False, objects.read(part.key)
            # Codes and their scales belong together: of a codec that has such, only equal bytes are taken.
            adopted = _decoded(part, standing, rows.readable) if exact and standing != data else None
            if adopted is not None and _by_one_teacher(objects, teacher, adopted, columns):
                final |= adopted
                data = standing
            elif standing != data:
                objects.replace(part.key, data)
        records.append(ObjectRecord.of(part.key, data))
    return records, final, fresh


def _decoded(part: UnitObject, data: bytes, readable: NDArray[np.bool_]) -> dict[str, NDArray[Any]] | None:
    """Values of the readable rows, if it decodes and holds those and no others."""
    try:
        found = part.decode(data)
    except CorruptObject:
        return None
    if any(not np.isnan(values[~readable]).all() for values in found.values()):
        return None
    return {name: values[readable] for name, values in found.items()}


def _by_one_teacher(
    objects: StoreObjects,
    teacher: TeacherManifest,
    found: Mapping[str, NDArray[Any]],
    computed: Mapping[str, NDArray[Any]],
) -> bool:
    """Whether columns are of the same rows and weights; other kernels and devices change last bits.

    A name is free to be pinned anew until a unit is committed, so whole shards of another teacher may lie
    under it, and retrained weights give much the same logits: no single value may be off by more.
    """
    tolerance = _ONE_TEACHER.get(str(teacher.fingerprint.get("dtype")), _ONE_TEACHER["float32"])
    decoded = load_codec(objects, teacher).decode(computed)
    spread = _spread(decoded.shifted_BC + decoded.row_max_B[:, None])
    return all(_near(values, computed[name], tolerance * spread) for name, values in found.items())


def _near(found: NDArray[Any], computed: NDArray[Any], tolerance: float) -> bool:
    if not np.isfinite(found).all():
        return False
    larger = np.maximum(np.abs(found), np.abs(computed))
    # Equal logits are rounded equally; those a last bit apart may be a whole step of the stored type apart.
    allowed = tolerance + (larger - np.nextafter(larger, 0)).astype(np.float64)
    return bool((np.abs(found.astype(np.float64) - computed) <= allowed).all())


def _spread(logits_RC: NDArray[np.float32]) -> float:
    """Standard deviation of logits; of constant ones, which have none, rounding of their size."""
    if not logits_RC.size:
        return 0.0
    return max(float(logits_RC.std(dtype=np.float64)), 1e-3 * float(np.abs(logits_RC).max()))


def unit_stats(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, columns: Mapping[str, NDArray[Any]]
) -> pa.Table:
    """Statistics of the rows as stored, in blocks: decoded, a unit may be far larger than it is stored."""
    first, _ = rows.segment.unit_range(rows.index)
    kept, ids = np.flatnonzero(rows.readable), rows.readable_ids
    codec, step = load_codec(objects, teacher), max(_BLOCK_ROWS, _BLOCK_VALUES // teacher.num_classes)
    blocks = [
        stats_table(
            codec.decode({name: values[block] for name, values in columns.items()}),
            classes_K=present_classes(teacher.num_classes, teacher.absent_classes),
            rows_B=first + kept[block],
            sample_ids=ids[block],
            labels_B=rows.labels[kept[block]],
        )
        for block in (slice(start, start + step) for start in range(0, max(len(kept), 1), step))
    ]
    return pa.concat_tables(blocks).combine_chunks()


def _receipt(
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
    correct: int,
    encoded: EncodedUnit,
    records: Sequence[ObjectRecord],
) -> UnitCommit:
    start, stop = rows.segment.unit_range(rows.index)
    row_max = columns.get("row_max", np.empty(0))
    return UnitCommit(
        teacher=teacher.name,
        unit=rows.unit,
        fingerprint=digest(teacher.fingerprint),
        start=start,
        stop=stop,
        rows=int(rows.readable.sum()),
        labelled=int((rows.labels[rows.readable] >= 0).sum()),
        correct=correct,
        row_max_range=(float(row_max.min()), float(row_max.max())) if len(row_max) else None,
        fidelity=encoded.fidelity,
        batch_size=encoded.batch_size,
        may_differ=encoded.may_differ,
        objects=tuple(records),
    )
