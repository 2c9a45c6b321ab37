"""A store's views: what each number is pinned to. A view's document is written once and never changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import standing_views
from softcask.pipeline.store.receipts import committed_codes
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.options import ViewsOptions
from softcask.pipeline.views.probing import check_probe, view_manifest
from softcask.pipeline.views.segments import Read, SegmentRows
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import differences
from softcask.storage_schemas.unit_codes import views_of
from softcask.storage_schemas.views import ViewManifest


def refuse_other_views(objects: StoreObjects, options: ViewsOptions | None) -> None:
    """Refuse a run's section `[views]` that describes a view otherwise than it is pinned.

    Raises:
        ManifestMismatch: It describes one of them otherwise; lists the fields.
    """
    if options is None:
        return
    standing = standing_views(objects)
    for number in options.numbers:
        if number in standing:
            _refuse_differences(objects, number, Views.of(options), standing[number])


def differing_fields(manifest: ViewManifest, views: Views) -> list[str]:
    """In what a description of views differs from what one of them is pinned to: a line a field."""
    return differences(_by_step(views.facts()), _by_step(manifest.pinned()))


def _by_step(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of views with a field for each step, so that what differs within one is told by itself."""
    steps = {f"steps[{number}]": step for number, step in enumerate(facts["steps"])}
    return {"seed": facts["seed"], **steps, "number of steps": len(steps)}


def pin_views(
    objects: StoreObjects,
    options: ViewsOptions,
    used: Collection[int],
    segment: str,
    rows: SegmentRows,
    read: Read,
) -> None:
    """Pin those of a run's views that are not pinned yet, and see whether others are still what they were.

    Args:
        objects: The store.
        options: The run's section.
        used: Numbers of the views that something is to be labelled in.
        segment: Name of the first segment, which probe rows are taken from.
        rows: Its rows.
        read: Reads them.

    Raises:
        ManifestMismatch: Another run has pinned one to something else meanwhile, or probe rows do not come
            out in one as they did when it was pinned.
        CorruptObject: Units of a view are committed, and nothing says what it is.
        SoftcaskError: As `view_manifest`.
    """
    standing, views = standing_views(objects), Views.of(options)
    missing = [number for number in options.numbers if number not in standing]
    _refuse_lost(objects, missing)
    for number in sorted(standing.keys() & used):
        if standing[number].segment == segment:
            check_probe(views, standing[number], rows, read, objects.uri)
    for number in missing:
        made, key = view_manifest(views, number, segment, rows, read), keys.view_manifest(number)
        if not objects.publish(key, made.to_bytes()):
            _refuse_differences(objects, number, views, ViewManifest.from_bytes(objects.read(key), key))


def _refuse_differences(objects: StoreObjects, number: int, views: Views, standing: ViewManifest) -> None:
    lines = differing_fields(standing, views)
    if not lines:
        return
    key = keys.view_manifest(number)
    unused = number not in _committed(objects)
    raise ManifestMismatch(
        f"view {number} of {objects.uri} is pinned to something else than this run's section [views] "
        f"describes:\n  "
        + "\n  ".join(lines)
        + "\nSet these back, or name another store. "
        + (
            f"No unit of it is committed yet: if it was a mistake, remove {key} from the store. "
            if unused
            else ""
        )
        + "Nothing was changed."
    )


def _refuse_lost(objects: StoreObjects, missing: Sequence[int]) -> None:
    if missing and (lost := _committed(objects) & set(missing)):
        key = keys.view_manifest(min(lost))
        raise CorruptObject(
            f"{key} of {objects.uri} is gone, though units of this view are committed. Put it back with "
            "`softcask repair` and the run's file, or from a copy of the store"
        )


def _committed(objects: StoreObjects) -> set[int]:
    """Numbers of the views of which some unit is committed."""
    found: set[int] = set()
    for teacher in objects.parts("teachers"):
        found |= set(np.unique(views_of(committed_codes(objects, teacher))).tolist())
    return found
