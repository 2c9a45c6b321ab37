from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from tests.stores import Killed, MadeStore, all_objects, mortal

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import DropPlan, drop, plan_drop, refuse_dropped
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import Dropped


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Two teachers over two segments of 20 and 10 rows; row 5 of the first is quarantined."""
    return two_segments(tmp_path)


def two_segments(folder: Path) -> MadeStore:
    made = MadeStore.at(str(folder / "store"))
    made.add_segment(20, quarantined=[5])
    made.add_segment(10)
    for name in ("alpha", "beta"):
        made.add_teacher(name)
        made.commit_all(name)
        seal(made.objects)
    return made


def dropped(made: MadeStore, **what: list[str]) -> DropPlan:
    plan = plan_drop(made.objects, **what)
    drop(made.objects, plan)
    return plan


def test_a_dropped_teacher_is_seen_no_more_and_the_others_as_before(made: MadeStore) -> None:
    before = open_store(made.objects.uri)
    rows = np.arange(29)
    beta = before.logits("beta", rows)
    plan = dropped(made, teachers=["alpha"])
    assert (plan.units, plan.readable, plan.readable_after) == (5, 29, 29)
    after = open_store(made.objects.uri)
    assert list(after.teachers) == ["beta"]
    assert pc.unique(after.commits["teacher"]).to_pylist() == ["beta"]
    np.testing.assert_array_equal(after.logits("beta", rows), beta)
    assert "alpha" not in open_store(made.objects.uri, allow_partial=True).teachers


def test_bytes_told_are_those_of_the_units_objects(made: MadeStore) -> None:
    sizes = [
        len(data)
        for key, data in all_objects(made.objects).items()
        if key.startswith(("teachers/alpha/logits", "teachers/alpha/stats")) and "zarr.json" not in key
    ]
    assert plan_drop(made.objects, teachers=["alpha"]).bytes == sum(sizes)


def test_who_reads_an_older_generation_reads_on(made: MadeStore) -> None:
    reader = open_store(made.objects.uri)
    expected = made.readable_logits("alpha")
    dropped(made, teachers=["alpha"], segments=["s0001"])
    found = reader.logits("alpha", np.arange(29))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_no_object_goes_and_none_changes_but_the_pointer(made: MadeStore) -> None:
    before = all_objects(made.objects)
    dropped(made, teachers=["alpha"], segments=["s0001"], sample_ids=["id-002"])
    after = all_objects(made.objects)
    assert {key for key, data in before.items() if after.get(key) != data} == {"catalog/newest.json"}
    assert all(key.startswith("catalog/00000003/") for key in after.keys() - before.keys())
    assert verify(made.objects.uri).problems == ()


def test_a_dropped_segment_takes_its_rows_along(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    for rows in (20, 10, 12):
        made.add_segment(rows)
    made.add_teacher("alpha")
    made.commit_all()
    seal(made.objects)
    kept = np.r_[0:20, 30:42]
    expected = open_store(made.objects.uri).logits("alpha", kept)
    plan = dropped(made, segments=["s0001"])
    assert (plan.units, plan.readable, plan.readable_after) == (2, 42, 32)
    after = open_store(made.objects.uri)
    assert [segment.segment for segment in after.segments] == ["s0000", "s0002"]
    assert after.rows.sample_ids.tolist() == [f"id-{row:03d}" for row in kept]
    np.testing.assert_array_equal(after.logits("alpha", np.arange(32)), expected)


def test_the_first_segment_stays_for_its_probe_rows(made: MadeStore) -> None:
    with pytest.raises(StoreError, match="s0000 .* cannot be dropped: it holds the probe rows"):
        plan_drop(made.objects, segments=["s0000"])


@pytest.mark.parametrize("allow_partial", [False, True])
def test_dropped_rows_are_gone_from_rows_logits_and_statistics(made: MadeStore, allow_partial: bool) -> None:
    before = open_store(made.objects.uri)
    kept = np.flatnonzero(~np.isin(before.rows.sample_ids, ["id-002", "id-025"]))
    expected = before.logits("alpha", kept)
    plan = dropped(made, sample_ids=["id-025", "id-002"])
    assert (plan.sample_ids, plan.readable_after) == (("id-002", "id-025"), 27)
    after = open_store(made.objects.uri, allow_partial=allow_partial)
    assert after.rows.sample_ids.tolist() == before.rows.sample_ids[kept].tolist()
    np.testing.assert_array_equal(after.logits("alpha", np.arange(27)), expected)
    assert after.stats("alpha")["sample_id"].to_pylist() == after.rows.sample_ids.tolist()


def test_drops_add_up_and_sealing_brings_nothing_back(made: MadeStore) -> None:
    dropped(made, teachers=["alpha"])
    dropped(made, sample_ids=["id-002"])
    dropped(made, sample_ids=["id-003"], segments=["s0001"])
    before = all_objects(made.objects)
    seal(made.objects)
    assert all_objects(made.objects) == before
    made.add_teacher("gamma")
    made.commit_all("gamma")
    seal(made.objects)
    store = open_store(made.objects.uri)
    assert sorted(store.teachers) == ["beta", "gamma"]
    assert [segment.segment for segment in store.segments] == ["s0000"]
    assert len(store.rows) == 20 - 3
    assert verify(made.objects.uri).problems == ()


def test_to_drop_again_does_nothing(made: MadeStore) -> None:
    what = {"teachers": ["alpha"], "segments": ["s0001"], "sample_ids": ["id-002"]}
    dropped(made, **what)
    before = all_objects(made.objects)
    again = dropped(made, **what)
    assert again.nothing
    assert all_objects(made.objects) == before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"teachers": ["alpha", "delta"]}, "no teacher 'delta'; it has: alpha, beta"),
        ({"segments": ["s0002"]}, "no segment 's0002'; it has: s0000, s0001"),
        ({"sample_ids": ["id-001", "x", "y"]}, r"no row 'x' \(2 of those"),
    ],
)
def test_what_the_store_does_not_have_is_refused(
    made: MadeStore, what: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        plan_drop(made.objects, **what)


def test_a_store_that_is_not_sealed_is_refused(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="not sealed"):
        plan_drop(made.objects, teachers=["alpha"])


def test_a_dropped_teachers_name_is_refused_to_those_who_would_label_under_it(made: MadeStore) -> None:
    assert refuse_dropped(made.objects, ["alpha"]) == Dropped()
    dropped(made, teachers=["alpha"], segments=["s0001"])
    assert refuse_dropped(made.objects, ["beta"]).segments == ("s0001",)
    with pytest.raises(StoreError, match=r"teacher 'alpha' was dropped .*softcask gc"):
        refuse_dropped(made.objects, ["alpha", "beta"])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_at_any_write_the_store_stands_as_before_or_after(
    made: MadeStore, step: int, after: bool
) -> None:
    """Writes: the dropped rows, the commits, the generation, the pointer."""
    plan = plan_drop(made.objects, teachers=["alpha"], sample_ids=["id-002"])
    with pytest.raises(Killed):
        drop(mortal(made.objects, step, after=after), plan)
    done = step == 4 or (step == 3 and after)
    store = open_store(made.objects.uri)
    assert sorted(store.teachers) == (["beta"] if done else ["alpha", "beta"])
    assert len(store.rows) == (28 if done else 29)
    assert verify(made.objects.uri).problems == ()
    drop(made.objects, plan_drop(made.objects, teachers=["alpha"], sample_ids=["id-002"]))
    again = open_store(made.objects.uri)
    assert (sorted(again.teachers), len(again.rows)) == (["beta"], 28)


def test_a_store_in_memory_drops_as_one_on_a_disk() -> None:
    objects = StoreObjects.at("memory://drops")
    made = MadeStore.at(objects.uri)
    made.add_segment(20)
    made.add_teacher("alpha")
    made.commit_all()
    seal(objects)
    dropped(made, teachers=["alpha"])
    newest = newest_generation(objects)
    assert newest is not None and (newest.generation, newest.tables) == (2, ())
    assert open_store(objects.uri).teachers == {}
