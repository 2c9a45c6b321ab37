"""Stores made by softcask as it was: `tests/data/store_v1` was written by the first version that had stores.

It holds what `tests.stores.sealed_store` makes, alpha sealed before beta.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.stores import MadeStore, sealed_store, teacher_manifest

from softcask.pipeline.store.objects import StoreObjects
from softcask.pipeline.store.reader import open_store
from softcask.pipeline.store.sealing import seal
from softcask.pipeline.store.verify import verify
from softcask.storage_schemas import keys
from softcask.storage_schemas.manifest import DOCUMENTS, TeacherManifest

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
