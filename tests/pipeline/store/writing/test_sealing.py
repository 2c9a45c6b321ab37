"""Sealing while a run goes on. What a store is sealed as must not depend on how it came to be sealed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores import Killed, MadeStore, all_objects, flip, mortal

from softcask.pipeline.store import unsealed
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.garbage import plan_gc
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.catalog import newest_generation, read_commits
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.receipts import CommitRow, commit_row
from softcask.pipeline.store.unsealed import pending_keys
from softcask.pipeline.store.writing import compacting, sealing
from softcask.pipeline.store.writing.compacting import first_to_merge
from softcask.pipeline.store.writing.sealing import Sealing, forget_pending, reseal, seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import IncompleteStore
from softcask.storage_schemas.manifest import ObjectRecord, Pointer

UNITS = 5
NAMES = ("alpha", "beta")


@pytest.fixture(autouse=True)
def a_pending_table_holds_three_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "PENDING_UNITS", 3)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Receipts that are read to be sealed."""
    found: list[tuple[str, int]] = []
    real = unsealed.read_commit

    def counted(objects: StoreObjects, teacher: object, unit: str) -> object:
        found.append((teacher.name, keys.parse_unit(unit)[2]))  # type: ignore[attr-defined]
        return real(objects, teacher, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(unsealed, "read_commit", counted)
    return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Two teachers of five units, nothing committed."""
    made = MadeStore.at(str(tmp_path_factory.mktemp("begun") / "store"))
    made.unit_rows = 4
    made.add_segment(4 * UNITS - 1, quarantined=[5])
    for name in NAMES:
        made.add_teacher(name)
    return made


@pytest.fixture(scope="module")
def sealed_at_once(begun: MadeStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All objects of the store whose receipts were read when all were there."""
    made = copy_of(begun, tmp_path_factory.mktemp("at-once"))
    made.commit_all()
    seal(made.objects)
    return all_objects(made.objects)


def copy_of(begun: MadeStore, folder: Path) -> MadeStore:
    shutil.copytree(begun.objects.root, folder / "store")
    return MadeStore(
        StoreObjects.at(str(folder / "store")),
        unit_rows=begun.unit_rows,
        segments=begun.segments,
        teachers=begun.teachers,
        logits=begun.logits,
    )


@pytest.fixture
def made(begun: MadeStore, tmp_path: Path) -> MadeStore:
    return copy_of(begun, tmp_path)


def reports(made: MadeStore, indexes: Iterable[int] = range(UNITS)) -> list[list[CommitRow]]:
    """What a run reports, a task at a time; each is committed when it is asked for."""
    return [[commit_row(made.commit(name, index)) for name in NAMES] for index in indexes]


def run(objects: StoreObjects, reported: Iterable[list[CommitRow]]) -> None:
    going_on = Sealing(objects)
    for rows in reported:
        going_on.add(rows)
    going_on.finish()


def test_reported_units_are_sealed_as_their_receipts_would_be_and_none_is_read(
    made: MadeStore, sealed_at_once: dict[str, bytes], read: list[tuple[str, int]]
) -> None:
    run(made.objects, reports(made, [3, 0, 4, 1, 2]))
    assert read == []
    assert all_objects(made.objects) == sealed_at_once


def test_nobody_sees_pending_tables_but_who_asks_for_what_is_not_sealed(
    made: MadeStore, read: list[tuple[str, int]]
) -> None:
    going_on = Sealing(made.objects)
    for rows in reports(made, [0, 1]):
        going_on.add(rows)
    assert len(pending_keys(made.objects)) == 1
    assert newest_generation(made.objects) is None
    with pytest.raises(IncompleteStore):
        open_store(made.objects.uri)
    assert verify(made.objects.uri).problems == ()
    assert len(open_store(made.objects.uri, allow_partial=True).commits) == 4
    assert read == []
    later = datetime.now(UTC) + timedelta(days=365)
    assert plan_gc(made.objects, older_than=timedelta(0), now=later).take == ()


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_a_run_is_sealed_by_the_next_as_if_undisturbed(
    begun: MadeStore, tmp_path: Path, sealed_at_once: dict[str, bytes], after: bool
) -> None:
    died = []
    for step in range(1, 9):
        made = copy_of(begun, tmp_path / str(step))
        dying = mortal(made.objects, step, after=after)
        try:
            run(dying, (rows for index in range(UNITS) for rows in reports(made, [index])))
        except Killed:
            died.append(dying.writes[-1].rpartition("/")[2].split("-")[0])
            assert verify(made.objects.uri).problems == ()
        made.commit_all()  # only what is missing is committed: the rest stands
        seal(made.objects)
        found = all_objects(made.objects)
        # Of a killed run that had sealed, tables that are named by nothing any more may be left to gc.
        left = {key for key in found.keys() - sealed_at_once.keys()}
        assert all(key.startswith("catalog/00000001/commits-") for key in left)
        assert not left or died[-1:] in (["newest.json"], ["generation.json"])
        if died and died[-1] == "newest.json":  # a hint that nobody needs
            found.setdefault(keys.CATALOG_POINTER, Pointer(generation=1).to_bytes())
        assert {key: data for key, data in found.items() if key not in left} == sealed_at_once
    # Two pending tables of four units, of the rest one table, the generation, the pointer.
    assert died == ["commits", "commits", "commits", "generation.json", "newest.json"]


def test_after_a_kill_only_receipts_that_stand_in_no_table_are_read(
    made: MadeStore, sealed_at_once: dict[str, bytes], read: list[tuple[str, int]]
) -> None:
    going_on = Sealing(made.objects)
    for rows in reports(made, [0, 1, 2]):
        going_on.add(rows)
    assert len(pending_keys(made.objects)) == 1, "the third task's units are known to the dead driver alone"
    run(made.objects, reports(made, [3, 4]))
    assert sorted(read) == [("alpha", 2), ("beta", 2)]
    assert all_objects(made.objects) == sealed_at_once


def spoil(objects: StoreObjects, key: str) -> None:
    objects.replace(key, flip(objects.read(key), 40))


def cut(objects: StoreObjects, key: str) -> None:
    objects.replace(key, objects.read(key)[:-9])


@pytest.mark.parametrize("harm", [spoil, cut, StoreObjects.remove])
def test_a_pending_table_that_is_damaged_or_gone_is_passed_over_and_receipts_are_read(
    made: MadeStore,
    sealed_at_once: dict[str, bytes],
    read: list[tuple[str, int]],
    harm: Callable[[StoreObjects, str], None],
) -> None:
    going_on = Sealing(made.objects)
    for rows in reports(made, [0, 1]):
        going_on.add(rows)
    (key,) = pending_keys(made.objects)
    harm(made.objects, key)
    for rows in reports(made, [2, 3, 4]):
        going_on.add(rows)
    going_on.finish()
    assert sorted(read) == [(name, index) for name in NAMES for index in (0, 1)]
    assert all_objects(made.objects) == sealed_at_once


def test_a_pending_table_of_another_teacher_of_that_name_is_not_believed(
    made: MadeStore, read: list[tuple[str, int]]
) -> None:
    """Somebody removed the teacher by hand, and began anew with another."""
    going_on = Sealing(made.objects)
    for rows in reports(made, [0, 1]):
        going_on.add(rows)
    shutil.rmtree(made.objects.path("teachers/alpha"))
    made.teachers = {**made.teachers}
    made.logits = {**made.logits}
    made.add_teacher("alpha", seed=1)
    made.commit_all()
    seal(made.objects)
    assert ("alpha", 0) in read
    assert verify(made.objects.uri).problems == ()


def test_where_tables_differ_the_receipt_tells(made: MadeStore, read: list[tuple[str, int]]) -> None:
    for _ in range(2):
        going_on = Sealing(made.objects)
        for rows in reports(made, [0, 1]):
            other = [{**row, "receipt": {**row["receipt"], "crc32c": "00000000"}} for row in rows]
            going_on.add(rows if not pending_keys(made.objects) else other)
    made.commit_all()
    seal(made.objects)
    assert set(read) >= {("alpha", 0), ("beta", 0)}
    assert verify(made.objects.uri).problems == ()


def test_two_runs_at_once_seal_every_unit_once(made: MadeStore, sealed_at_once: dict[str, bytes]) -> None:
    one, other = Sealing(made.objects), Sealing(made.objects)
    for rows in reports(made):
        one.add(rows)
        other.add(rows)
    first = one.finish()
    assert other.finish() == first
    assert all_objects(made.objects) == sealed_at_once


def test_a_run_that_is_overtaken_by_a_sealed_generation_adds_to_that(made: MadeStore) -> None:
    slow = Sealing(made.objects)
    for rows in reports(made, [0, 1]):
        slow.add(rows)
    run(made.objects, reports(made, [2]))
    for rows in reports(made, [3, 4]):
        slow.add(rows)
    newest = slow.finish()
    rows = read_commits(made.objects, newest).to_pylist()
    assert sorted((row["teacher"], row["index"]) for row in rows) == [
        (n, i) for n in NAMES for i in range(UNITS)
    ]
    assert newest.teachers["alpha"].units == UNITS
    assert pending_keys(made.objects) == []
    assert verify(made.objects.uri).problems == ()


def test_tables_that_repeat_receipts_which_are_to_change_can_be_forgotten(made: MadeStore) -> None:
    seal(made.objects)
    going_on = Sealing(made.objects)
    for rows in reports(made, [0, 1]):
        going_on.add(rows)
    before = all_objects(made.objects)
    (waiting,) = pending_keys(made.objects)
    forget_pending(made.objects)
    assert all_objects(made.objects) == {key: data for key, data in before.items() if key != waiting}


def test_a_catalog_that_is_made_anew_beside_pending_tables_has_no_gap(made: MadeStore) -> None:
    run(made.objects, reports(made, [0]))
    going_on = Sealing(made.objects)
    for rows in reports(made, [1, 2]):
        going_on.add(rows)
    spoil(made.objects, keys.generation(1))
    assert reseal(made.objects, rebuild=True).generation == 2
    made.objects.remove(keys.generation(1))
    assert verify(made.objects.uri).problems == ()
    assert len(open_store(made.objects.uri).commits) == 6


def test_a_table_of_an_old_generation_is_not_taken_for_a_pending_one(made: MadeStore) -> None:
    """`gc` takes an old generation's document, and leaves its tables where the newest one inherits them."""
    for index in range(3):
        run(made.objects, reports(made, [index]))
    made.objects.remove(keys.generation(1))
    made.objects.remove(keys.CATALOG_POINTER)
    assert pending_keys(made.objects) == []
    assert open_store(made.objects.uri).generation == 3


def test_no_table_has_more_units_than_it_may(made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "TABLE_UNITS", 4)
    monkeypatch.setattr(sealing, "TABLE_UNITS", 4)
    run(made.objects, reports(made))
    for generation in (newest_generation(made.objects), reseal(made.objects)):
        assert generation is not None
        parts = [
            read_commits(made.objects, generation.model_copy(update={"tables": (t,)}))
            for t in generation.tables
        ]
        assert [len(part) for part in parts] == [4, 4, 2]
        units = [(row["teacher"], row["index"]) for part in parts for row in part.to_pylist()]
        assert units == [(name, index) for name in NAMES for index in range(UNITS)]
    assert len(open_store(made.objects.uri).commits) == 2 * UNITS


def test_a_store_that_grows_unit_by_unit_has_few_tables(
    made: MadeStore, sealed_at_once: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "_AT_ONCE", 3)
    tables = []
    for index in range(UNITS):
        run(made.objects, reports(made, [index]))
        tables.append(len(newest_generation(made.objects).tables))  # type: ignore[union-attr]
    assert tables == [1, 2, 3, 1, 2], "the fourth is one with the three before it"
    totals = newest_generation(made.objects).teachers  # type: ignore[union-attr]
    assert totals["alpha"].units == totals["alpha"].planned_units == UNITS
    assert len(open_store(made.objects.uri).commits) == 2 * UNITS
    assert verify(made.objects.uri).problems == ()


@given(runs=st.lists(st.integers(1, 3 << 20), max_size=300))
def test_a_catalog_has_few_tables_and_rewrites_a_byte_few_times(runs: list[int]) -> None:
    held: list[ObjectRecord] = []
    written = 0
    for size in runs:
        kept = first_to_merge(held)
        merged = size + sum(record.size for record in held[kept:])
        written += merged
        held = [*held[:kept], ObjectRecord(key="k", size=merged, crc32c="00000000")]
        small = sum(record.size < 1 << 20 for record in held)
        assert small <= 8 * 7 + 1  # eight of each of seven sizes below 1 MiB
        assert max(record.size for record in held) <= (3 << 20) + 8 * (1 << 20)
    assert sum(record.size for record in held) == sum(runs)
    assert written <= 8 * sum(runs)
