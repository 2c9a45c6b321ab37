"""Commit a unit: its objects published whole, its receipt last. That the receipt exists is the commit.

Execution may happen more than once (a killed worker, two drivers, a straggler run twice); publication
happens once. Who finds a name taken adopts what stands there, so that receipts always describe the bytes
that are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.layout import array_layouts
from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.publishing import publish_table
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import canonical, differences, digest
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest, TeacherManifest, UnitCommit
from softcask.storage_schemas.stats import stats_table
from softcask.storage_schemas.zarr_layout import ArrayLayout

_ONE_TEACHER = {"float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""By the dtype that a teacher computes in: how far any value of two passes of it may be apart, in standard
deviations of its logits. What other devices and kernels do to one set of weights, as the probe allows it."""

_ROUNDS = 5
"""Attempts to end a race over damaged objects; each ends in one as a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """The rows of one unit, quarantined ones among them.

    Attributes:
        segment: Their segment.
        view: Number of the view.
        index: Place of the unit in the segment.
        sample_ids: `[n]` ids.
        labels: `[n]`, -1 where a row has none.
        readable: `[n]`, False where a row is quarantined.
    """

    segment: SegmentManifest
    view: int
    index: int
    sample_ids: Sequence[str]
    labels: NDArray[np.int64]
    readable: NDArray[np.bool_]

    @property
    def unit(self) -> str:
        """The unit's name within its teacher."""
        return keys.unit_name(self.segment.segment, self.view, self.index)


def committed_units(objects: StoreObjects, teacher: str) -> set[str]:
    """Names of a teacher's committed units: one listing, no receipt is read.

    What else lies there (a file manager's notes, say) is no unit's receipt and is left alone.
    """
    names = objects.names(keys.commits_folder(teacher))
    units = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return {unit for unit in units if keys.is_unit(unit)}


def read_commit(objects: StoreObjects, teacher: TeacherManifest, unit: str) -> UnitCommit | None:
    """A unit's receipt, or None where it is not committed.

    Raises:
        CorruptObject: The receipt is damaged.
        ManifestMismatch: It was made by something else than the teacher's name is pinned to.
    """
    key = keys.commit(teacher.name, unit)
    if (data := objects.read_if_present(key)) is None:
        return None
    commit = UnitCommit.from_bytes(data, key)
    if (commit.teacher, commit.unit) != (teacher.name, unit):
        raise CorruptObject(f"{key} is the receipt of {commit.teacher}/{commit.unit}; it was moved or copied")
    if commit.fingerprint != digest(teacher.fingerprint):
        raise ManifestMismatch(
            f"{key} was committed by {commit.fingerprint}, teacher {teacher.name!r} is pinned to "
            f"{digest(teacher.fingerprint)}; the two come from different stores"
        )
    return commit


def commit_unit(
    objects: StoreObjects, teacher: TeacherManifest, rows: UnitRows, logits_RC: NDArray[np.float32]
) -> UnitCommit:
    """Encode the logits of a unit's readable rows `[R, C]`, publish them, and write the receipt.

    Returns:
        The receipt in the store: this call's, or the one that another writer got there first with.

    Raises:
        ManifestMismatch: The teacher's name was pinned to something else meanwhile.
        StoreAccess: The filesystem refused.
        CorruptObject: The filesystem gives back other bytes than it took.
        Whatever is raised, nothing of this unit counts as committed by this call.
    """
    columns = _scattered(codec_from(teacher.codec).encode(logits_RC), rows.readable)
    for _ in range(_ROUNDS):
        # What a receipt describes is not to be touched any more, least of all by a pass that differs from it.
        standing = read_commit(objects, teacher, rows.unit)
        if standing is not None and _stand(objects, standing.objects):
            _refuse_if_pinned_anew(objects, teacher)
            return standing
        receipt, fresh = _publish_objects(objects, teacher, rows, columns, logits_RC)
        # Names that were taken may have been mended, by several writers at once. Each goes on until the
        # receipt that stands describes the objects that stand, whoever put them there.
        if not fresh and not _stand(objects, receipt.objects):
            continue
        _refuse_if_pinned_anew(objects, teacher)
        standing = _put_receipt(objects, teacher, receipt)
        _take_back_if_pinned_anew(objects, teacher, rows.unit)
        if fresh or _stand(objects, standing.objects):
            return standing
    raise CorruptObject(
        f"unit {rows.unit} of teacher {teacher.name!r}: {objects.uri} did not give back in {_ROUNDS} "
        "attempts the bytes that were written to it. Look at the disk or the filesystem, then run again."
    )


def _publish_objects(
    objects: StoreObjects,
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
    logits_RC: NDArray[np.float32],
) -> tuple[UnitCommit, bool]:
    """A receipt of the unit's objects, and whether all their names were free."""
    records, columns, fresh = _publish_columns(objects, teacher, rows, columns, logits_RC)
    stats = _stats(teacher, rows, columns)
    key = keys.stats_part(teacher.name, rows.segment.segment, rows.view, rows.index)
    record, was_free = publish_table(objects, key, stats)
    return _receipt(teacher, rows, columns, stats, [*records, record]), fresh and was_free


def _refuse_if_pinned_anew(objects: StoreObjects, teacher: TeacherManifest) -> None:
    """A name is free until a first unit is committed, so it may have changed hands while this one was run."""
    key = keys.teacher_manifest(teacher.name)
    standing = TeacherManifest.from_bytes(objects.read(key), key)
    if lines := differences(canonical(teacher.pinned()), canonical(standing.pinned())):
        raise ManifestMismatch(
            f"another run has pinned teacher {teacher.name!r} of {objects.uri} to something else:\n  "
            + "\n  ".join(lines)
            + "\nGive one of the two a new name. Nothing of this unit was committed."
        )


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


def _scattered(columns: Mapping[str, NDArray[Any]], readable: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Columns over all rows of the unit; quarantined ones hold NaN."""
    if readable.all():
        return dict(columns)
    spread = {}
    for name, values in columns.items():
        spread[name] = np.full((len(readable), *values.shape[1:]), np.nan, dtype=values.dtype)
        spread[name][readable] = values
    return spread


def _publish_columns(
    objects: StoreObjects,
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
    logits_RC: NDArray[np.float32],
) -> tuple[list[ObjectRecord], dict[str, NDArray[Any]], bool]:
    """Publish a shard a column; where one stands already and is this teacher's, that one counts.

    Returns:
        Records of the shards, the values in them, and whether all their names were free.
    """
    group = keys.logits_group(teacher.name, rows.segment.segment, rows.view)
    records, final, fresh = [], {}, True
    for name, layout in array_layouts(teacher, rows.segment).items():
        key = f"{group}/{layout.shard_key(rows.index)}"
        values, data = columns[name], layout.encode_shard(columns[name])
        if not objects.publish(key, data):
            fresh, standing = False, objects.read(key)
            adopted = _decoded(layout, standing, len(values), key)
            if adopted is not None and _by_one_teacher(teacher, adopted, values, logits_RC):
                values, data = adopted, standing
            else:
                objects.replace(key, data)
        final[name] = values
        records.append(ObjectRecord.of(key, data))
    return records, final, fresh


def _decoded(layout: ArrayLayout, data: bytes, rows: int, key: str) -> NDArray[Any] | None:
    try:
        return layout.decode_shard(data, rows, key)
    except CorruptObject:
        return None


def _by_one_teacher(
    teacher: TeacherManifest, found: NDArray[Any], computed: NDArray[Any], logits_RC: NDArray[np.float32]
) -> bool:
    """Whether two columns are of the same rows and weights; other kernels and devices change last bits.

    A name is free to be pinned anew until a unit is committed, so whole shards of another teacher may lie
    under it, and retrained weights give much the same logits: no single value may be off by more.
    """
    known = ~np.isnan(computed)
    if not np.array_equal(~np.isnan(found), known):
        return False
    if not np.isfinite(known_found := found[known]).all():
        return False
    tolerance = _ONE_TEACHER.get(str(teacher.fingerprint.get("dtype")), _ONE_TEACHER["float32"])
    larger = np.maximum(np.abs(known_found), np.abs(computed[known]))
    # Equal logits are rounded equally; those a last bit apart may be a whole step of the stored type apart.
    allowed = tolerance * _spread(logits_RC) + (larger - np.nextafter(larger, 0)).astype(np.float64)
    return bool((np.abs(known_found.astype(np.float64) - computed[known]) <= allowed).all())


def _spread(logits_RC: NDArray[np.float32]) -> float:
    """Standard deviation of logits; of constant ones, which have none, rounding of their size."""
    if not logits_RC.size:
        return 0.0
    return max(float(logits_RC.std(dtype=np.float64)), 1e-3 * float(np.abs(logits_RC).max()))


def _stats(teacher: TeacherManifest, rows: UnitRows, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    first, _ = rows.segment.unit_range(rows.index)
    kept = np.flatnonzero(rows.readable)
    return stats_table(
        codec_from(teacher.codec).decode({name: values[kept] for name, values in columns.items()}),
        rows_B=first + kept,
        sample_ids=[rows.sample_ids[int(place)] for place in kept],
        labels_B=rows.labels[kept],
    )


def _receipt(
    teacher: TeacherManifest,
    rows: UnitRows,
    columns: Mapping[str, NDArray[Any]],
    stats: pa.Table,
    records: Sequence[ObjectRecord],
) -> UnitCommit:
    start, stop = rows.segment.unit_range(rows.index)
    labels = stats["label"].fill_null(-1).to_numpy()
    top = pc.list_element(stats["top_classes"], 0).to_numpy()
    row_max = columns["row_max"][rows.readable]
    return UnitCommit(
        teacher=teacher.name,
        unit=rows.unit,
        fingerprint=digest(teacher.fingerprint),
        start=start,
        stop=stop,
        rows=len(stats),
        labelled=int((labels >= 0).sum()),
        correct=int((labels == top).sum()),
        row_max_range=(float(row_max.min()), float(row_max.max())) if len(row_max) else None,
        objects=tuple(records),
    )
