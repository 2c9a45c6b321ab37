"""Stores made by softcask as it was: `tests/data/store_v1` was written by the first version that had stores.

It holds what `tests.stores.sealed_store` makes, alpha sealed before beta.
"""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.stores import Killed, MadeStore, all_objects, flip, mortal, sealed_store, teacher_manifest

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.garbage import collect, plan_gc
from softcask.pipeline.store.care.migration import migrate, plan_migration
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.checksum import crc32c_hex
from softcask.storage_schemas.documents import DOCUMENTS
from softcask.storage_schemas.errors import CorruptObject, FormatTooNew
from softcask.storage_schemas.manifest import TeacherManifest

OLD = Path(__file__).parents[2] / "data" / "store_v1"


@pytest.fixture
def old(tmp_path: Path) -> StoreObjects:
    """A copy that a test may write to."""
    shutil.copytree(OLD, tmp_path / "old")
    return StoreObjects.at(str(tmp_path / "old"))


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return sealed_store(str(tmp_path_factory.mktemp("young") / "store"))


def test_every_document_of_an_older_store_keeps_its_bytes() -> None:
    """Receipts are recorded by their bytes: a field added since may not show where it says nothing."""
    kinds = {kind.softcask: kind for kind in DOCUMENTS}
    read = 0
    for path in OLD.rglob("*.json"):
        data = path.read_bytes()
        if (kind := kinds.get(json.loads(data).get("softcask"))) is not None:
            assert kind.from_bytes(data, path.name).to_bytes() == data
            read += 1
    assert read == 15


def test_an_older_store_is_sound_as_it_is(old: StoreObjects) -> None:
    report = verify(old.uri)
    assert (report.problems, report.orphans) == ((), 0)


def test_an_older_store_reads_as_one_made_now(old: StoreObjects, young: MadeStore) -> None:
    then, now = open_store(old.uri), open_store(young.objects.uri)
    rows = np.arange(len(now.rows))
    assert sorted(then.teachers) == ["alpha", "beta"]
    assert then.rows.sample_ids.tolist() == now.rows.sample_ids.tolist()
    for teacher in ("alpha", "beta"):
        np.testing.assert_array_equal(then.logits(teacher, rows), now.logits(teacher, rows))


def test_a_run_goes_on_in_an_older_store(old: StoreObjects) -> None:
    key = keys.teacher_manifest("alpha")
    assert TeacherManifest.from_bytes(old.read(key), key).pinned() == teacher_manifest("alpha").pinned()
    made = MadeStore(old)
    made.add_segment(20, quarantined=[5])
    made.add_teacher("gamma")
    made.commit_all()
    assert seal(old).generation == 3
    assert verify(old.uri).problems == ()


def test_a_store_sealed_many_times_migrates_to_one_table_and_reads_the_same(old: StoreObjects) -> None:
    reader, before = open_store(old.uri), all_objects(old)
    plan = plan_migration(old)
    assert (plan.versions, plan.tables, plan.generation) == ({1: 15}, 2, 2)
    assert migrate(old, plan) == 3
    after = all_objects(old)
    assert {key for key, data in before.items() if after[key] != data} == {keys.CATALOG_POINTER}
    store = open_store(old.uri)
    rows = np.arange(19)
    for teacher in ("alpha", "beta"):
        np.testing.assert_array_equal(store.logits(teacher, rows), reader.logits(teacher, rows))
    newest = newest_generation(old)
    assert newest is not None and len(newest.tables) == 1
    assert verify(old.uri).problems == ()
    again = plan_migration(old)
    assert again.nothing and migrate(old, again) == 3
    assert all_objects(old) == after
    collect(old, plan_gc(old, older_than=timedelta()))
    assert sorted(open_store(old.uri).teachers) == ["alpha", "beta"]


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
def test_a_migration_that_is_killed_leaves_the_old_store_or_the_new(
    old: StoreObjects, step: int, after: bool
) -> None:
    """Writes: the table, the generation, the pointer."""
    with pytest.raises(Killed):
        migrate(mortal(old, step, after=after), plan_migration(old))
    assert open_store(old.uri).generation == (3 if (step, after) >= (2, True) else 2)
    assert verify(old.uri).problems == ()
    assert migrate(old, plan_migration(old)) == 3
    assert plan_migration(old).nothing


def test_a_store_of_a_newer_softcask_is_refused_and_left(old: StoreObjects) -> None:
    key = keys.commit("alpha", "s0000-v0000-00000001")
    body = json.loads(old.read(key))
    text = json.dumps({**body, "format_version": 2, "checksum": "crc32c:00000000"}, indent=2) + "\n"
    old.replace(key, text.replace('00000000"\n}', f'{crc32c_hex(text.encode())}"\n}}').encode())
    before = all_objects(old)
    with pytest.raises(FormatTooNew, match="format version 2"):
        plan_migration(old)
    assert all_objects(old) == before


def test_a_damaged_document_is_refused(old: StoreObjects) -> None:
    old.replace(keys.teacher_manifest("alpha"), flip(old.read(keys.teacher_manifest("alpha")), 40))
    with pytest.raises(CorruptObject, match="teacher.json"):
        plan_migration(old)
