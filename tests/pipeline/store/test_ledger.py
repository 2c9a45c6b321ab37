"""What runs spent, added up by hand; and whose passes stand behind an entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.stores import teacher_manifest

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.ledger import Spent, reuse, spent_by_teacher
from softcask.storage_schemas import keys
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import TeacherManifest
from softcask.storage_schemas.runs import RunProgress, RunRecord


def record(run: str, **fields: Any) -> RunRecord:
    given: dict[str, Any] = {"units": {}, "rows": {}, "device_seconds": {}, "stage_seconds": {}, **fields}
    return RunRecord(
        run=run,
        started="2026-01-01T00:00:00+00:00",
        wall_seconds=1.0,
        executor="ray",
        workers=2,
        host="somewhere",
        versions={},
        devices=("cuda",),
        **given,
    )


@pytest.fixture
def objects(tmp_path: Path) -> StoreObjects:
    return StoreObjects.at(str(tmp_path))


def test_runs_are_added_up_and_work_done_for_nothing_is_no_part_of_a_rows_price(
    objects: StoreObjects,
) -> None:
    first = record("r1", rows={"a": 600}, units={"a": 6}, device_seconds={"a": 66.0}, repeated={"a": 6.0})
    second = record(
        "r2", rows={"a": 400, "b": 10}, units={"a": 4, "b": 1}, device_seconds={"a": 40.0, "b": 5.0}
    )
    third = record("r3", trials={"a": 3.0})
    for each in (first, second, third):
        objects.publish(keys.run_record(each.run), each.to_bytes())
    spent = spent_by_teacher(objects)
    assert spent["a"] == Spent(rows=1000, units=10, device_seconds=106.0, repeated=6.0, trials=3.0, runs=3)
    assert spent["a"].seconds_a_row == 0.1
    assert spent["b"].seconds_a_row == 0.5


def test_a_run_that_was_killed_counts_with_what_it_said_last(objects: StoreObjects) -> None:
    said = RunProgress(
        run="r1",
        started="",
        updated="",
        beat=4,
        interval=10.0,
        host="",
        executor="ray",
        stage="label",
        rows={"a": 64},
        units={"a": 2},
        device_seconds={"a": 8.0},
    )
    objects.publish(keys.run_progress("r1"), said.to_bytes())
    assert spent_by_teacher(objects)["a"].seconds_a_row == 0.125


def test_a_record_counts_once_though_its_driver_said_the_same(objects: StoreObjects) -> None:
    test_a_run_that_was_killed_counts_with_what_it_said_last(objects)
    objects.publish(keys.run_record("r1"), record("r1", rows={"a": 64}, device_seconds={"a": 8.0}).to_bytes())
    assert spent_by_teacher(objects)["a"].device_seconds == 8.0


def test_a_damaged_record_is_left_out_and_hides_no_other(objects: StoreObjects) -> None:
    objects.publish(keys.run_record("r1"), b"{")
    objects.publish(keys.run_record("r2"), record("r2", rows={"a": 2}, device_seconds={"a": 1.0}).to_bytes())
    assert spent_by_teacher(objects) == {"a": Spent(rows=2, device_seconds=1.0, runs=1)}


def derived(name: str, *sources: str) -> TeacherManifest:
    facts = [{"teacher": source, "fingerprint": f"sha256:{source}"} for source in sources]
    update = {"kind": "derived", "fingerprint": {"derived_from": facts}}
    return teacher_manifest(name).model_copy(update=update)


def test_an_entry_made_from_others_stands_for_their_passes_each_once() -> None:
    teachers = {name: teacher_manifest(name) for name in ("a", "b")}
    teachers |= {"ab": derived("ab", "a", "b"), "small": derived("small", "ab")}
    spent = {"a": Spent(rows=10, device_seconds=1.0), "b": Spent(rows=10, device_seconds=3.0)}
    used = reuse(teachers, ["a", "small"], spent, rows=100)
    assert [(each.teacher, each.through, each.seconds_a_row) for each in used] == [
        ("a", ("a", "small"), 0.1),
        ("b", ("small",), 0.3),
    ]
    assert [each.saved_seconds for each in used] == pytest.approx([10.0, 30.0])
    assert used[0].fingerprint == digest(teachers["a"].fingerprint)


def test_a_source_that_was_dropped_is_known_by_what_was_made_from_it() -> None:
    (used,) = reuse({"ab": derived("ab", "gone")}, ["ab"], {}, rows=5)
    assert (used.teacher, used.fingerprint, used.seconds_a_row) == ("gone", "sha256:gone", None)


def test_what_nobody_measured_is_not_known_and_not_nothing() -> None:
    (used,) = reuse({"a": teacher_manifest("a")}, ["a"], {}, rows=5)
    assert used.seconds_a_row is None
    assert used.saved_seconds is None


@pytest.mark.parametrize(
    "sources", [7, "a", [], [7], [{"teacher": 7}], [{"teacher": "../x"}], [{"teacher": "loop"}]]
)
def test_a_store_that_names_nonsense_as_sources_is_read_all_the_same(sources: Any) -> None:
    update = {"kind": "derived", "fingerprint": {"derived_from": sources}}
    loop = teacher_manifest("loop").model_copy(update=update)
    for each in reuse({"loop": loop}, ["loop"], {}, rows=5):
        assert each.seconds_a_row is None
