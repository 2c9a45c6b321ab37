from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.s3_server import S3
from tests.scaled_codec import add_scaled_teacher
from tests.stores import Killed, MadeStore, Mortal, all_objects, mortal, sealed_store

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import drop, plan_drop, refuse_dropped
from softcask.pipeline.store.care.garbage import GcPlan, collect, modified_at, plan_gc
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject, StoreNotFound
from softcask.storage_schemas.manifest import Pointer

WEEK, NONE = timedelta(days=7), timedelta()


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Alpha and beta, sealed; all written ten days ago."""
    made = sealed_store(str(tmp_path / "store"))
    grow_old(made.objects, days=10)
    return made


def grow_old(objects: StoreObjects, *, days: float) -> None:
    """Every object that is younger looks as if it had been written that long ago."""
    then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    assert objects.local is not None
    for path in objects.local.rglob("*"):
        if path.is_file() and path.stat().st_mtime > then:
            os.utime(path, (then, then))


def dropped(made: MadeStore, **what: list[str]) -> None:
    drop(made.objects, plan_drop(made.objects, **what))


def found(plan: GcPlan) -> dict[str, str]:
    return {each.key: each.reason for each in plan.take}


def test_a_store_in_use_has_no_garbage_however_old(made: MadeStore) -> None:
    plan = plan_gc(made.objects, older_than=NONE)
    assert (plan.take, plan.young, plan.foreign) == ((), (), 0)
    assert plan.kept == len(all_objects(made.objects))


def test_a_dropped_teacher_goes_with_the_generations_that_name_it(made: MadeStore) -> None:
    dropped(made, teachers=["alpha"])
    grow_old(made.objects, days=8)
    before = all_objects(made.objects)
    expected = {key: "dropped" for key in before if key.startswith("teachers/alpha/")}
    expected |= {key: "superseded" for key in before if key.startswith("catalog/00000001/")}
    plan = plan_gc(made.objects, older_than=WEEK)
    assert found(plan) == expected
    assert sum(each.size for each in plan.take) == sum(len(before[key]) for key in expected)
    assert all_objects(made.objects) == before, "a plan changes nothing"
    assert collect(made.objects, plan) == len(expected)
    after = all_objects(made.objects)
    rest = {key: data for key, data in before.items() if key not in expected}
    assert {key: after[key] for key in rest if key != keys.CATALOG_POINTER} == {
        key: data for key, data in rest.items() if key != keys.CATALOG_POINTER
    }
    assert verify(made.objects.uri).problems == ()
    assert list(open_store(made.objects.uri).teachers) == ["beta"]


def test_what_was_dropped_a_short_time_ago_stays_for_those_who_read_it(made: MadeStore) -> None:
    reader = open_store(made.objects.uri)
    dropped(made, teachers=["alpha"])
    grow_old(made.objects, days=6)
    assert plan_gc(made.objects, older_than=WEEK).take == ()
    assert reader.logits("alpha", np.arange(19)).shape == (19, 3)


def test_a_name_is_free_again_once_its_objects_are_gone(made: MadeStore) -> None:
    dropped(made, teachers=["alpha"], sample_ids=["id-002"])
    plan = plan_gc(made.objects, older_than=NONE)
    assert plan.freed.teachers == ("alpha",)
    collect(made.objects, plan)
    refuse_dropped(made.objects, ["alpha"])
    newest = newest_generation(made.objects)
    assert newest is not None and newest.dropped.teachers == ()
    made.add_teacher("alpha", seed=7)
    made.commit_all("alpha")
    seal(made.objects)
    store = open_store(made.objects.uri)
    assert sorted(store.teachers) == ["alpha", "beta"]
    assert "id-002" not in store.rows.sample_ids, "rows stay dropped"
    np.testing.assert_allclose(
        store.logits("alpha", np.arange(18)), np.delete(made.readable_logits("alpha"), 2, 0), atol=0.02
    )
    assert verify(made.objects.uri).problems == ()


def test_a_dropped_segment_goes_from_every_teacher(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(20)
    made.add_segment(10)
    made.add_teacher("alpha")
    made.commit_all()
    seal(made.objects)
    dropped(made, segments=["s0001"])
    plan = plan_gc(made.objects, older_than=NONE)
    assert plan.freed.segments == ("s0001",)
    gone = {key for key, reason in found(plan).items() if reason == "dropped"}
    assert gone == {key for key in all_objects(made.objects) if "s0001" in key}
    collect(made.objects, plan)
    assert verify(made.objects.uri).problems == ()
    assert open_store(made.objects.uri).logits("alpha", np.arange(20)).shape == (20, 3)


def test_what_a_killed_writer_of_a_planned_unit_left_is_never_garbage(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever labels the unit adopts it."""
    made.add_teacher("delta")
    add_scaled_teacher(made, "gamma", monkeypatch)
    for name, writes in (("delta", 2), ("gamma", 1)):
        with pytest.raises(Killed):
            made.commit(name, 1, objects=mortal(made.objects, writes, after=True))
    made.objects.publish("transfer_set/s0001/rows.parquet", b"a segment that was begun")
    grow_old(made.objects, days=1000)
    plan = plan_gc(made.objects, older_than=NONE)
    assert (plan.take, plan.foreign) == ((), 0)


def test_orphans_and_temporaries_go_when_they_are_old_and_what_is_not_ours_never(made: MadeStore) -> None:
    orphans = [
        "teachers/gamma/probe.parquet",
        "teachers/gamma/logits/s0000/v0000/zarr.json",
        "teachers/alpha/logits/s0000/v0000/logits/c/3/0",
        "teachers/alpha/stats/s0009/v0000/part-00000000.parquet",
        "teachers/alpha/codec/basis-00000000.npy",
    ]
    temporary = "teachers/alpha/commits/.tmp-s0000-v0000-00000000.json-0123"
    others = ["README.md", "teachers/alpha/commits/notes.txt", "catalog/notes/x.parquet", "letters/a.txt"]
    for key in (*orphans, temporary, *others):
        made.objects.publish(key, b"left behind")
    plan = plan_gc(made.objects, older_than=WEEK)
    assert (plan.take, {each.key for each in plan.young}) == ((), {*orphans, temporary})
    assert plan.foreign == len(others)
    grow_old(made.objects, days=8)
    plan = plan_gc(made.objects, older_than=WEEK)
    assert found(plan) == {**dict.fromkeys(orphans, "orphan"), temporary: "temporary"}
    collect(made.objects, plan)
    left = all_objects(made.objects)
    assert not left.keys() & {*orphans, temporary} and left.keys() >= set(others)


def test_what_is_sealed_next_is_let_alone(made: MadeStore) -> None:
    """Who seals publishes the table first."""
    made.objects.publish("catalog/00000002/commits-01234567.parquet", b"")
    grow_old(made.objects, days=30)
    assert plan_gc(made.objects, older_than=NONE).take == ()


def test_the_newest_generations_stay_as_many_as_asked_for(made: MadeStore) -> None:
    for number in range(3):
        dropped(made, sample_ids=[f"id-{number:03d}"])
    grow_old(made.objects, days=8)

    def generations(keep: int) -> list[str]:
        plan = plan_gc(made.objects, older_than=WEEK, keep=keep)
        return [each.key for each in plan.take if each.key.endswith("generation.json")]

    assert generations(1) == [keys.generation(number) for number in (1, 2, 3)]
    assert generations(3) == [keys.generation(1)]
    assert generations(9) == []


def test_tables_that_a_newer_generation_inherits_stay(made: MadeStore) -> None:
    made.add_teacher("gamma")
    made.commit_all("gamma")
    seal(made.objects)
    plan = plan_gc(made.objects, older_than=NONE)
    assert found(plan) == {keys.generation(1): "superseded"}
    collect(made.objects, plan)
    assert sorted(open_store(made.objects.uri).teachers) == ["alpha", "beta", "gamma"]
    assert verify(made.objects.uri).problems == ()


def test_a_pointer_that_is_behind_does_not_end_up_at_nothing(made: MadeStore) -> None:
    dropped(made, sample_ids=["id-001"])
    made.objects.replace(keys.CATALOG_POINTER, Pointer(generation=1).to_bytes())
    collect(made.objects, plan_gc(made.objects, older_than=NONE))
    assert keys.generation(1) not in all_objects(made.objects)
    assert open_store(made.objects.uri).generation == 2
    assert verify(made.objects.uri).problems == ()


def test_what_was_written_anew_since_the_plan_stays(made: MadeStore) -> None:
    key = "teachers/gamma/probe.parquet"
    made.objects.publish(key, b"old")
    grow_old(made.objects, days=8)
    plan = plan_gc(made.objects, older_than=WEEK)
    made.objects.replace(key, b"pinned anew")
    assert collect(made.objects, plan) == 0
    assert made.objects.read(key) == b"pinned anew"


def test_a_second_collection_finds_nothing(made: MadeStore) -> None:
    dropped(made, teachers=["alpha"])
    for _ in range(2):
        collect(made.objects, plan_gc(made.objects, older_than=NONE))
    before = all_objects(made.objects)
    plan = plan_gc(made.objects, older_than=NONE)
    assert (plan.take, plan.freed.teachers) == ((), ())
    collect(made.objects, plan)
    assert all_objects(made.objects) == before


@dataclass(frozen=True, slots=True)
class Remover(Mortal):
    """A process that may die at a removal, too."""

    removed: list[str] = field(default_factory=list, compare=False)

    def remove(self, key: str) -> None:
        self._live(key, lambda: StoreObjects.remove(self, key) or self.removed.append(key) or True)


@pytest.mark.parametrize("after", [False, True])
def test_killed_anywhere_the_store_reads_and_verifies_and_the_rest_goes_next_time(
    made: MadeStore, tmp_path: Path, after: bool
) -> None:
    made.commit_all()
    dropped(made, teachers=["alpha"], sample_ids=["id-002"])
    expected = open_store(made.objects.uri).logits("beta", np.arange(18))
    steps = len(plan_gc(made.objects, older_than=NONE).take) + 3
    for step in range(1, steps + 1):
        shutil.copytree(made.objects.root, folder := tmp_path / f"{after}-{step}")
        own = StoreObjects.at(str(folder))
        dying = Remover(own.uri, own.fs, own.root, step=step, after=after)
        with pytest.raises(Killed):
            collect(dying, plan_gc(dying, older_than=NONE))
        assert verify(own.uri).problems == ()
        store = open_store(own.uri)
        np.testing.assert_array_equal(store.logits("beta", np.arange(18)), expected)
        collect(own, plan_gc(own, older_than=NONE))
        assert not any(key.startswith("teachers/alpha/") for key in all_objects(own))
        refuse_dropped(own, ["alpha"])
        assert verify(own.uri).problems == ()


def test_a_damaged_catalog_is_no_ground_to_take_anything_away(made: MadeStore) -> None:
    made.objects.replace(keys.generation(1), b"{}")
    with pytest.raises(CorruptObject, match="generation.json"):
        plan_gc(made.objects, older_than=NONE)


def test_a_place_without_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / ".tmp-x").write_text("not ours")
    with pytest.raises(StoreNotFound):
        plan_gc(StoreObjects.at(str(tmp_path / "letters")), older_than=NONE)


def test_a_store_in_memory_is_collected_as_one_on_a_disk() -> None:
    made = sealed_store("memory://garbage")
    dropped(made, teachers=["alpha"])
    assert plan_gc(made.objects, older_than=WEEK).take == ()
    collect(made.objects, plan_gc(made.objects, older_than=NONE))
    assert not any(key.startswith("teachers/alpha/") for key in all_objects(made.objects))
    assert verify(made.objects.uri).problems == ()


def test_a_store_on_s3_is_collected_by_the_servers_clock(s3: S3) -> None:
    made = sealed_store(s3.uri)
    dropped(made, teachers=["alpha"])
    now = datetime.now(UTC)
    assert plan_gc(made.objects, older_than=WEEK, now=now + timedelta(days=6)).take == ()
    plan = plan_gc(made.objects, older_than=WEEK, now=now + timedelta(days=8))
    assert set(found(plan).values()) == {"dropped", "superseded"}
    assert collect(made.objects, plan) == len(plan.take)
    assert not any(key.startswith("teachers/alpha/") for key in made.objects.all_keys())
    assert refuse_dropped(made.objects, ["alpha"]).teachers == ()
    assert verify(made.objects.uri).problems == ()
    assert open_store(made.objects.uri).logits("beta", np.arange(19)).shape == (19, 3)


@pytest.mark.parametrize(
    "info",
    [
        {"mtime": 1_700_000_000.0},
        {"LastModified": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)},
        {"updated": "2023-11-14T22:13:20+00:00"},
        {"created": datetime(2023, 11, 14, 22, 13, 20)},
    ],
)
def test_the_age_of_an_object_is_read_from_what_each_filesystem_tells(info: dict[str, object]) -> None:
    assert modified_at(info) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_an_object_of_unknown_age_is_not_old() -> None:
    assert modified_at({"size": 3, "updated": "yesterday"}) is None
