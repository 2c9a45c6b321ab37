"""An error that every task has is told from one that a few have."""

from __future__ import annotations

from softcask.pipeline.executors.streak import Streak, kind_of
from softcask.storage_schemas.errors import StoreAccess, StoreFull, TeacherError


def classes(unit: int, found: int = 7) -> TeacherError:
    return TeacherError(f"teacher 'a', unit s0000-v0000-{unit:08d}: expected [16, 5], found [16, {found}]")


def test_the_first_three_that_fail_alike_end_it() -> None:
    streak = Streak(tasks=10**6)
    assert [streak.failed(unit, classes(unit), given_up=False) for unit in range(3)] == [False, False, True]


def test_attempts_of_one_task_count_once() -> None:
    streak = Streak(tasks=10)
    assert not any(streak.failed(4, classes(4), given_up=False) for _ in range(9))


def test_errors_of_other_kinds_begin_to_count_anew() -> None:
    streak = Streak(tasks=10)
    errors = [classes(0), StoreAccess("no space left"), classes(2), classes(3), classes(4)]
    told = [streak.failed(unit, error, given_up=False) for unit, error in enumerate(errors)]
    assert told == [False, False, False, False, True]


def test_of_fewer_than_three_tasks_all_have_to_fail() -> None:
    assert Streak(tasks=1).failed(0, classes(0), given_up=False)
    streak = Streak(tasks=2)
    assert [streak.failed(unit, classes(unit), given_up=False) for unit in range(2)] == [False, True]


def test_after_a_task_that_went_well_only_sixteen_that_were_given_up_in_a_row_end_it() -> None:
    streak = Streak(tasks=10**6)
    streak.ended_well()
    assert not any(streak.failed(unit, classes(unit), given_up=False) for unit in range(1000))
    assert [streak.failed(unit, classes(unit), given_up=True) for unit in range(16)] == [False] * 15 + [True]
    streak.ended_well()
    assert not streak.failed(99, classes(99), given_up=True)


def test_what_the_store_does_not_take_is_no_tasks_fault_and_four_end_it() -> None:
    streak = Streak(tasks=10**6)
    streak.ended_well()
    full = StoreAccess("no space left to write commits/s0000-v0000-00000012.json")
    assert [streak.failed(unit, full, given_up=True) for unit in range(4)] == [False] * 3 + [True]


def test_errors_are_alike_whatever_rows_and_values_they_name() -> None:
    assert kind_of(classes(1)) == kind_of(classes(200))
    assert kind_of(classes(1)) != kind_of(TeacherError("teacher 'a' raised MemoryError"))
    digests = [TeacherError(f"found sha256:{digest}") for digest in ("0a1b2c3d" * 8, "ffeeddcc" * 8)]
    assert kind_of(digests[0]) == kind_of(digests[1])


def test_a_full_disk_ends_a_run_at_once_because_its_worker_has_waited_for_room() -> None:
    streak = Streak(tasks=10**6)
    streak.ended_well()
    assert streak.failed(7, StoreFull("no space left to write s0000"), given_up=False)
