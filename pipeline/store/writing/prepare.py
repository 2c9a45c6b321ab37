"""Make a store ready for a run, or find that it is: its root and its rows.

Everything here is safe to run twice and by two drivers at once: what stands is compared, field by field, and
never changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.receipts import committed_units
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.store.writing.publishing import publish_table
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import ManifestMismatch, StoreError
from softcask.storage_schemas.fingerprint import canonical, differences
from softcask.storage_schemas.manifest import RootManifest, SegmentManifest, SourceFacts
from softcask.storage_schemas.zarr_layout import check_unit_rows


def check_root(objects: StoreObjects, class_names: Sequence[str]) -> None:
    """Refuse a place that cannot become, or is not, a store about these classes. Nothing is written.

    Raises:
        ManifestMismatch: The store is about other classes.
        StoreError: The place holds something that is no store.
        FormatTooNew: The store was made by a newer softcask.
    """
    data = objects.read_if_present(keys.ROOT)
    if data is None:
        objects.refuse_below_a_file()
        # Of runs a store tells before it is one: they may index for long.
        if others := [name for name in objects.names("") if name != keys.RUNS]:
            raise StoreError(
                f"{objects.uri} is no softcask store (it has no {keys.ROOT}) and is not empty: it holds "
                f"{others[0]!r}{f' and {len(others) - 1} more' if others[1:] else ''}. "
                "Name an empty place or a store."
            )
        return
    _refuse_differences(
        RootManifest(class_names=tuple(class_names)).model_dump(mode="json"),
        RootManifest.from_bytes(data, keys.ROOT).model_dump(mode="json"),
        f"the store {objects.uri} is about other classes than this run",
        lambda: f"Set the classes back, or {_elsewhere(objects)}.",
    )


def prepare_root(objects: StoreObjects, class_names: Sequence[str]) -> None:
    """The store's root, made if there is none; see `check_root`."""
    check_root(objects, class_names)
    objects.publish(keys.ROOT, RootManifest(class_names=tuple(class_names)).to_bytes())
    objects.refuse_overwriting(keys.ROOT, objects.read(keys.ROOT))
    check_root(objects, class_names)


def _elsewhere(objects: StoreObjects) -> str:
    """What else can be done about a store that was made otherwise."""
    if any(committed_units(objects, name) for name in objects.parts("teachers")):
        return "name another store"
    return f"remove {objects.uri}, in which no unit is committed yet"


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
    columns: Iterable[Column] = (),
    first: int = 0,
) -> SegmentManifest:
    """The rows of a segment, indexed if they are not yet, or known again without reading them.

    Args:
        objects: The store.
        segment: Name of the segment.
        source: Cheap facts about the source; equal facts spare reading it.
        input_shape: Shape of one row.
        input_dtype: numpy dtype of the rows, or `text`.
        unit_rows: Rows a unit as the user states them, or None.
        index: Reads every row of the segment; called only when it must be.
        choose_unit_rows: Rows a unit, from the number of rows, where the user states none.
        columns: What will be kept of each row; a stated number of rows a unit must suit them.
        first: Place of its first row in the source.

    Raises:
        StoreError: Units of so many rows would fall into tiny chunks.
        ManifestMismatch: The segment stands with other rows, another shape or another unit length.
    """
    key = keys.segment_manifest(segment)
    data = objects.read_if_present(key)
    if data is None:
        if unit_rows is not None:
            check_unit_rows(unit_rows, columns)
        table = index()
        manifest = SegmentManifest(
            segment=segment,
            rows=len(table),
            quarantined=len(table) - table["quarantine"].null_count,
            labelled=len(table) - table["label"].null_count,
            unit_rows=unit_rows or choose_unit_rows(len(table)),
            input_shape=input_shape,
            input_dtype=input_dtype,
            table=publish_table(objects, keys.segment_rows(segment), table)[0],
            first=first,
        )
        if objects.publish(key, manifest.to_bytes()):
            _remember(objects, manifest, source)
        data = objects.read(key)
    standing = SegmentManifest.from_bytes(data, key)
    wanted = {
        "input_shape": list(input_shape),
        "input_dtype": input_dtype,
        "unit_rows": unit_rows or standing.unit_rows,
        "first": first,
    }
    _refuse_differences(
        wanted,
        {**{name: standing.model_dump(mode="json").get(name) for name in wanted}, "first": standing.first},
        f"segment {segment} of {objects.uri} was made otherwise",
        lambda: f"Set these back, or {_elsewhere(objects)}.",
    )
    if not known_again(objects, standing, source):
        _refuse_other_rows(objects, standing, index())
        _remember(objects, standing, source)
    return standing


def _facts(segment: SegmentManifest, source: dict[str, Any]) -> bytes:
    return SourceFacts(segment=segment.segment, table=segment.table, source=canonical(source)).to_bytes()


def known_again(objects: StoreObjects, segment: SegmentManifest, source: dict[str, Any]) -> bool:
    """Whether a source says of itself what it said when the segment was last compared with it, row by row."""
    return objects.read_if_present(keys.source_facts(segment.segment)) == _facts(segment, source)


def _remember(objects: StoreObjects, segment: SegmentManifest, source: dict[str, Any]) -> None:
    objects.replace(keys.source_facts(segment.segment), _facts(segment, source))


def _refuse_other_rows(objects: StoreObjects, standing: SegmentManifest, found: pa.Table) -> None:
    expected = read_rows(objects, standing)
    if found.equals(expected):
        return
    lines = [f"rows: found {len(found)}, expected {len(expected)}"] if len(found) != len(expected) else []
    both, other = min(len(found), len(expected)), set()
    for name in tables.ROWS.names:
        left, right = found[name].slice(0, both), expected[name].slice(0, both)
        same = pc.fill_null(pc.equal(left, right), False)
        differ = pc.and_not(pc.invert(same), pc.and_(pc.is_null(left), pc.is_null(right)))
        if count := pc.sum(differ).as_py():
            other.add(name)
            first = pc.index(differ, True).as_py()
            lines.append(
                f"{name}: differs in {count} rows, first in row {first} "
                f"(found {_shown(left[first])}, expected {_shown(right[first])})"
            )
    raise ManifestMismatch(
        f"the transfer set is not the one that segment {standing.segment} of {objects.uri} was made from:\n  "
        + "\n  ".join(lines)
        + (_same_under_other_ids(expected["sample_id"][0].as_py()) if other == {"sample_id"} else "")
        + f"\nUse the rows it was made from, or {_elsewhere(objects)}. Nothing was changed."
    )


def _same_under_other_ids(sample_id: str) -> str:
    """What to do about rows whose content and labels are those that were committed."""
    numbered = re.fullmatch(r"(.+)-[0-9]{8}", sample_id)
    prefix = f": set transfer_set.id_prefix = {json.dumps(numbered[1])}" if numbered else ""
    return f"\nThey are the same rows under other ids, which follow a file's name; keep the ids{prefix}."


def _shown(value: pa.Scalar) -> str:
    plain = value.as_py()
    return plain.hex() if isinstance(plain, bytes) else repr(plain)


def _refuse_differences(found: Any, expected: Any, what: str, advice: Callable[[], str]) -> None:
    if lines := differences(found, expected):
        raise ManifestMismatch(f"{what}:\n  " + "\n  ".join(lines) + f"\n{advice()}")
