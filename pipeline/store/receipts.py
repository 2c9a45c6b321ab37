"""Receipts: which units are committed, and what each holds. That a receipt exists is the commit."""

from __future__ import annotations

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import TeacherManifest, UnitCommit


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
