"""Receipts: which units are committed, and what each holds. That a receipt exists is the commit."""

from __future__ import annotations

from typing import Any

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import ObjectRecord, TeacherManifest, UnitCommit
from softcask.storage_schemas.unit_codes import UnitCodes, codes_of

CommitRow = dict[str, Any]
"""A receipt as the catalog repeats it: a row of the table `COMMITS`, and the `fingerprint` of its teacher.

Plain values, because a driver takes a million of them.
"""


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


def committed_codes(objects: StoreObjects, teacher: str) -> UnitCodes:
    """A teacher's committed units, as `committed_units` finds them, in 8 bytes each."""
    names = objects.names(keys.commits_folder(teacher))
    return codes_of([name.removesuffix(".json") for name in names if name.endswith(".json")])


def commit_row(commit: UnitCommit) -> CommitRow:
    """What the catalog is to say of a unit whose receipt this is."""
    segment, view, index = keys.parse_unit(commit.unit)
    return {
        **{name: getattr(commit, name) for name in ("teacher", "unit", "start", "stop")},
        **{name: getattr(commit, name) for name in ("rows", "labelled", "correct", "fingerprint")},
        "segment": segment,
        "view": view,
        "index": index,
        "objects": [record.model_dump() for record in commit.objects],
        "receipt": ObjectRecord.of(keys.commit(commit.teacher, commit.unit), commit.to_bytes()).model_dump(),
    }
