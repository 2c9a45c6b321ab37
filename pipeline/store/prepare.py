"""Make a store ready for a run, or find that it is: its root and its rows.

Everything here is safe to run twice and by two drivers at once: what stands is compared, field by field, and
never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.publishing import publish_table
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import ManifestMismatch, StoreError
from softcask.storage_schemas.fingerprint import canonical, differences
from softcask.storage_schemas.manifest import RootManifest, SegmentManifest


def prepare_root(objects: StoreObjects, class_names: Sequence[str]) -> RootManifest:
    """The store's root, made if there is none.

    Raises:
        ManifestMismatch: The store is about other classes.
        StoreError: The place holds something that is no store.
    """
    wanted = RootManifest(class_names=tuple(class_names))
    if objects.read_if_present(keys.ROOT) is None and (others := objects.names("")):
        raise StoreError(
            f"{objects.uri} is no softcask store (it has no {keys.ROOT}) and is not empty: it holds "
            f"{others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''}. "
            "Name an empty place or a store."
        )
    objects.publish(keys.ROOT, wanted.to_bytes())
    standing = RootManifest.from_bytes(objects.read(keys.ROOT), keys.ROOT)
    _refuse_differences(
        wanted.model_dump(mode="json"),
        standing.model_dump(mode="json"),
        f"the store {objects.uri} is about other classes than this run",
        "Use another store, or the classes this one was made with.",
    )
    return standing


def prepare_segment(
    objects: StoreObjects,
    segment: str,
    *,
    source: dict[str, Any],
    input_shape: tuple[int, ...],
    input_dtype: str,
    unit_rows: int | None,
    index: Callable[[], pa.Table],
    choose_unit_rows: Callable[[int], int],
) -> SegmentManifest:
    """The rows of a segment, indexed if they are not yet, or known again without reading them.

    Args:
        objects: The store.
        segment: Name of the segment.
        source: Cheap facts about the source; equal facts spare reading it.
        input_shape: Shape of one row.
        input_dtype: numpy dtype of the rows.
        unit_rows: Rows a unit as the user states them, or None.
        index: Reads every row of the source; called only when it must be.
        choose_unit_rows: Rows a unit, from the number of rows, where the user states none.

    Raises:
        ManifestMismatch: The segment stands with other rows, another shape or another unit length.
    """
    key = keys.segment_manifest(segment)
    data = objects.read_if_present(key)
    if data is None:
        table = index()
        manifest = SegmentManifest(
            segment=segment,
            rows=len(table),
            quarantined=len(table) - table["quarantine"].null_count,
            labelled=len(table) - table["label"].null_count,
            unit_rows=unit_rows or choose_unit_rows(len(table)),
            input_shape=input_shape,
            input_dtype=input_dtype,
            source=canonical(source),
            table=publish_table(objects, keys.segment_rows(segment), table)[0],
        )
        objects.publish(key, manifest.to_bytes())
        data = objects.read(key)
    standing = SegmentManifest.from_bytes(data, key)
    wanted = {
        "input_shape": list(input_shape),
        "input_dtype": input_dtype,
        "unit_rows": unit_rows or standing.unit_rows,
    }
    _refuse_differences(
        wanted,
        {name: standing.model_dump(mode="json")[name] for name in wanted},
        f"segment {segment} of {objects.uri} was made otherwise",
        "Set these back, or use another store.",
    )
    if standing.source != canonical(source):
        _refuse_other_rows(objects, standing, index())
    return standing


def read_rows(objects: StoreObjects, segment: SegmentManifest) -> pa.Table:
    """The rows' table of a segment, checked.

    Raises:
        CorruptObject: It is gone, or its bytes are not those that were committed.
    """
    return tables.from_bytes(objects.read_recorded(segment.table), tables.ROWS, segment.table.key)


def _refuse_other_rows(objects: StoreObjects, standing: SegmentManifest, found: pa.Table) -> None:
    expected = read_rows(objects, standing)
    if found.equals(expected):
        return
    lines = [f"rows: found {len(found)}, expected {len(expected)}"] if len(found) != len(expected) else []
    both = min(len(found), len(expected))
    for name in tables.ROWS.names:
        left, right = found[name].slice(0, both), expected[name].slice(0, both)
        same = pc.fill_null(pc.equal(left, right), False)
        differ = pc.and_not(pc.invert(same), pc.and_(pc.is_null(left), pc.is_null(right)))
        if count := pc.sum(differ).as_py():
            first = pc.index(differ, True).as_py()
            lines.append(
                f"{name}: differs in {count} rows, first in row {first} "
                f"(found {_shown(left[first])}, expected {_shown(right[first])})"
            )
    raise ManifestMismatch(
        f"the transfer set is not the one that segment {standing.segment} of {objects.uri} was made from:\n  "
        + "\n  ".join(lines)
        + "\nUse the rows it was made from, or another store. Nothing was changed."
    )


def _shown(value: pa.Scalar) -> str:
    plain = value.as_py()
    return plain.hex() if isinstance(plain, bytes) else repr(plain)


def _refuse_differences(found: Any, expected: Any, what: str, advice: str) -> None:
    if lines := differences(found, expected):
        raise ManifestMismatch(f"{what}:\n  " + "\n  ".join(lines) + f"\n{advice}")
