"""A few augmented rows, by their hashes: whether a view is still what it was, which no list of options tells.

Another version of a library, another processor, a function that was changed: all give other rows under the
same options, and a student would see what its teacher did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.pipeline.transfer_sets.text import dtype_name
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.segments import Read, SegmentRows, view_rows
from softcask.storage_schemas.errors import ConfigError, CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import canonical
from softcask.storage_schemas.keys import view_manifest as view_key
from softcask.storage_schemas.views import ViewManifest, ViewProbe

_PROBES = 8
_VERSIONED = ("softcask", "numpy", "torch", "torchvision", "pillow")


def view_manifest(views: Views, view: int, segment: str, rows: SegmentRows, read: Read) -> ViewManifest:
    """What a view is to be pinned to.

    Args:
        views: What views do.
        view: Number of the view.
        segment: Name of the segment that probe rows are from.
        rows: Its rows.
        read: Reads them.

    Raises:
        ConfigError: A row comes out otherwise beside others than alone: something else than its id, its seed
            and its view decides.
        SoftcaskError: As `view_rows`.
    """
    positions_P = rows.readable_R[
        np.arange(count := min(_PROBES, len(rows.readable_R))) * len(rows.readable_R) // max(count, 1)
    ]
    together = view_rows(views, rows, positions_P, view, read).inputs_B
    hashes = content_hashes(together).tolist() if count else []
    ids = rows.ids(positions_P)
    for sample_id, position, content in zip(ids, positions_P, hashes, strict=True):
        alone = view_rows(views, rows, np.array([position]), view, read).inputs_B
        if content_hashes(alone).tolist() != [content]:
            raise ConfigError(
                f"view {view} of row {sample_id!r} came out otherwise when it was made a second time, "
                "without other rows beside it. What is random must be drawn from the generator that a "
                "callable is given, or from torch's by a transform, and not from `random`, `numpy.random` or "
                "what was left by the row before"
            )
    return ViewManifest(
        view=view,
        **canonical(views.facts()),
        row_shape=together.shape[1:],
        row_dtype=dtype_name(together.dtype),
        segment=segment,
        probe=tuple(
            ViewProbe(row=int(position), sample_id=sample_id, content=content.hex())
            for position, sample_id, content in zip(positions_P, ids, hashes, strict=True)
        ),
        recorded={"versions": versions(), "sources": views.recorded()},
    )


def check_probe(
    views: Views,
    manifest: ViewManifest,
    rows: SegmentRows,
    read: Read,
    where: str,
    *,
    some: NDArray[np.int64] | None = None,
) -> None:
    """Refuse views under which a probe row is no longer what it was.

    Args:
        views: What views do here.
        manifest: What the view is pinned to.
        rows: Rows of the segment that it names.
        read: Reads them.
        where: The store, for messages.
        some: Positions that can be read here; None: all.

    Raises:
        ManifestMismatch: A probe row differs.
        CorruptObject: The probe names rows that the segment does not have.
        SoftcaskError: As `view_rows`.
    """
    probes = [each for each in manifest.probe if some is None or each.row in some]
    if not probes:
        return
    positions_P = np.array([each.row for each in probes], dtype=np.int64)
    _refuse_other_rows(manifest, probes, rows, positions_P, where)
    found_P = view_rows(views, rows, positions_P, manifest.view, read).inputs_B
    hashes = [content.hex() for content in content_hashes(found_P).tolist()]
    differing = [probe for probe, found in zip(probes, hashes, strict=True) if probe.content != found]
    if differing:
        raise ManifestMismatch(
            f"view {manifest.view} of {where} does not come out here as it did when it was pinned: "
            f"{len(differing)} of {len(probes)} probe rows differ, the first is {differing[0].sample_id!r} "
            f"({dtype_name(found_P.dtype)} {list(found_P.shape[1:])}, then {manifest.row_dtype} "
            f"{list(manifest.row_shape)}). Its options are the same, so code or a library differs: "
            f"{_other_versions(manifest)}. Go back to those, or leave the view out"
        )


def _refuse_other_rows(
    manifest: ViewManifest,
    probes: Sequence[ViewProbe],
    rows: SegmentRows,
    positions_P: NDArray[np.int64],
    where: str,
) -> None:
    """A document of a store may say anything."""
    readable_P = np.isin(positions_P, rows.readable_R)
    if not readable_P.all() or rows.ids(positions_P) != [each.sample_id for each in probes]:
        raise CorruptObject(
            f"{view_key(manifest.view)} of {where} has probe rows that are not those of segment "
            f"{manifest.segment}; it was moved or changed"
        )


def versions() -> dict[str, str]:
    """Versions of what augmented rows may depend on."""
    found = {}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _other_versions(manifest: ViewManifest) -> str:
    recorded: Any = manifest.recorded.get("versions")
    before: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    now = versions()
    differing = [
        f"{name} {now.get(name, 'none')} here and {before.get(name, 'none')} then"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return (
        ", ".join(differing)
        or "the versions that were recorded are the same, so look at functions, and at the processor"
    )
