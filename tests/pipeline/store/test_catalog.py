from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.stores import Killed, MadeStore, all_objects, flip, mortal, overtaken, teacher_manifest

from softcask.pipeline.store import unsealed
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.catalog import newest_generation, read_commits, read_contents
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import Generation, ObjectRecord, Pointer


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Two teachers, three units each, all of alpha's committed; not sealed."""
    return begun(tmp_path, "store")


def begun(folder: Path, name: str) -> MadeStore:
    made = MadeStore.at(str(folder / name))
    made.add_segment(20, quarantined=[5])
    made.add_teacher("alpha")
    made.add_teacher("beta")
    made.commit_all("alpha")
    return made


def units_of(objects: StoreObjects, generation: Generation) -> list[tuple[str, int]]:
    return [(row["teacher"], row["index"]) for row in read_commits(objects, generation).to_pylist()]


def test_nothing_sealed_is_no_generation(made: MadeStore) -> None:
    assert newest_generation(made.objects) is None


def test_a_generation_holds_what_is_committed_and_counts_it(made: MadeStore) -> None:
    generation = seal(made.objects)
    assert units_of(made.objects, generation) == [("alpha", 0), ("alpha", 1), ("alpha", 2)]
    receipts = [
        made.objects.read(key)
        for key in all_objects(made.objects)
        if key.startswith("teachers/alpha/commits/")
    ]
    shards = [data for key, data in all_objects(made.objects).items() if "/c/" in key or "/stats/" in key]
    top = made.readable_logits("alpha").argmax(axis=1)
    rows = [row for row in made.segments["s0000"][1].to_pylist() if row["quarantine"] is None]
    totals = generation.teachers["alpha"]
    assert len(receipts) == totals.units == totals.planned_units == 3
    assert totals.rows == 19
    assert totals.labelled == sum(row["label"] is not None for row in rows)
    assert totals.correct == sum(row["label"] == best for row, best in zip(rows, top, strict=True))
    assert totals.bytes == sum(map(len, shards))
    recorded = [row["receipt"] for row in read_commits(made.objects, generation).to_pylist()]
    assert [record["crc32c"] for record in recorded] == [ObjectRecord.of("", r).crc32c for r in receipts]


def test_to_seal_again_makes_no_new_generation_and_changes_nothing(made: MadeStore) -> None:
    generation = seal(made.objects)
    before = all_objects(made.objects)
    assert seal(made.objects) == generation
    assert all_objects(made.objects) == before


def test_what_is_new_is_added_to_the_tables_that_a_generation_inherits(made: MadeStore) -> None:
    first = seal(made.objects)
    before = all_objects(made.objects)
    made.commit_all("beta")
    second = seal(made.objects)
    assert (first.generation, second.generation) == (1, 2)
    assert second.tables[:1] == first.tables
    assert len(second.tables) == 2
    assert units_of(made.objects, second) == [(name, n) for name in ("alpha", "beta") for n in range(3)]
    after = all_objects(made.objects)
    changed = {key for key, data in before.items() if after[key] != data}
    assert changed == {keys.CATALOG_POINTER}
    assert newest_generation(made.objects) == second


def test_a_teacher_that_has_committed_nothing_may_be_pinned_anew_under_a_sealed_generation(
    made: MadeStore,
) -> None:
    """Its name is still free; those who read the sealed generation must not notice."""
    seal(made.objects)
    made.objects.replace(keys.teacher_manifest("beta"), teacher_manifest("beta", seed=1).to_bytes())
    store = open_store(made.objects.uri)
    assert sorted(store.teachers) == ["alpha"]
    assert verify(made.objects.uri).problems == ()


@pytest.mark.parametrize("name", [".DS_Store", "notes.json", "._s0000-v0000-00000000.json", "s0000.json"])
def test_a_stray_file_among_the_receipts_is_no_unit(made: MadeStore, name: str) -> None:
    made.objects.publish(f"{keys.commits_folder('alpha')}/{name}", b"not ours")
    assert seal(made.objects).teachers["alpha"].units == 3
    assert open_store(made.objects.uri, allow_partial=True).missing_units("alpha") == []


def test_a_generation_counts_teachers_that_have_committed_nothing_yet(made: MadeStore) -> None:
    totals = seal(made.objects).teachers
    assert (totals["beta"].units, totals["beta"].planned_units, totals["beta"].bytes) == (0, 3, 0)


@pytest.mark.parametrize("pointer", [None, 1, 2])
def test_a_pointer_that_is_lost_or_behind_hides_nothing(made: MadeStore, pointer: int | None) -> None:
    for index in range(3):
        made.commit("beta", index)
        newest = seal(made.objects)
    assert newest.generation == 3
    if pointer is None:
        Path(made.objects.path(keys.CATALOG_POINTER)).unlink()
    else:
        made.objects.replace(keys.CATALOG_POINTER, Pointer(generation=pointer).to_bytes())
    assert newest_generation(made.objects) == newest
    assert open_store(made.objects.uri).generation == 3
    assert seal(made.objects) == newest


def test_a_pointer_to_a_generation_that_is_gone_is_not_taken_for_an_older_one(made: MadeStore) -> None:
    seal(made.objects)
    made.objects.replace(keys.CATALOG_POINTER, Pointer(generation=7).to_bytes())
    with pytest.raises(CorruptObject, match="names generation 7, which is not there"):
        newest_generation(made.objects)


@pytest.mark.parametrize("key", [keys.generation(2), keys.CATALOG_POINTER])
def test_of_two_sealers_the_slower_one_loses_nothing(made: MadeStore, key: str) -> None:
    """The other seals more units just before this one publishes its generation, or moves the pointer."""
    seal(made.objects)
    made.commit("beta", 0)

    def other() -> None:
        made.commit("beta", 1)
        seal(made.objects)

    seal(overtaken(made.objects, key, other))
    newest = newest_generation(made.objects)
    assert newest is not None
    units = [*(("alpha", n) for n in range(3)), ("beta", 0), ("beta", 1)]
    assert sorted(units_of(made.objects, newest)) == units
    assert newest.teachers["beta"].units == 2
    assert verify(made.objects.uri).problems == ()


def test_threads_that_commit_and_seal_at_once_end_with_every_unit_sealed_once(made: MadeStore) -> None:
    start = threading.Barrier(3)

    def work(index: int) -> int:
        start.wait()
        made.commit("beta", index)
        return seal(made.objects).generation

    with ThreadPoolExecutor(3) as pool:
        newest = max(pool.map(work, range(3)))
    found = newest_generation(made.objects)
    assert found is not None
    assert found.generation == newest
    assert sorted(units_of(made.objects, found)) == [(n, i) for n in ("alpha", "beta") for i in range(3)]
    assert verify(made.objects.uri).problems == ()


@pytest.mark.parametrize("after", [False, True])
def test_killed_between_any_two_steps_a_seal_is_done_by_the_next(tmp_path: Path, after: bool) -> None:
    undisturbed = begun(tmp_path, "undisturbed")
    seal(undisturbed.objects)
    undisturbed.commit_all("beta")
    seal(undisturbed.objects)
    expected = all_objects(undisturbed.objects)
    steps = 0
    for step in range(1, 9):
        made = begun(tmp_path, f"store-{step}")
        seal(made.objects)
        made.commit_all("beta")
        try:
            seal(mortal(made.objects, step, after=after))
        except Killed:
            steps += 1
            # Whoever reads meanwhile finds the old generation or the new one, whole.
            units = len(open_store(made.objects.uri).commits)
            assert units in (3, 6)
            assert verify(made.objects.uri).problems == ()
        generation = seal(made.objects)
        assert generation.generation == 2
        # The pointer is a hint: nobody moves it when nothing is new.
        found = all_objects(made.objects)
        assert found.pop(keys.CATALOG_POINTER) in (Pointer(generation=n).to_bytes() for n in (1, 2))
        assert found == {key: data for key, data in expected.items() if key != keys.CATALOG_POINTER}
    assert steps == 3  # the table, the generation, the pointer


def test_a_table_that_a_killed_sealer_left_damaged_is_replaced(made: MadeStore) -> None:
    generation = seal(made.objects)
    (record,) = generation.tables
    for key in (keys.generation(1), keys.CATALOG_POINTER):
        Path(made.objects.path(key)).unlink()
    made.objects.replace(record.key, flip(made.objects.read(record.key), 9))
    assert seal(made.objects) == generation
    assert verify(made.objects.uri).problems == ()


def test_a_flipped_byte_in_any_document_of_the_catalog_is_found(made: MadeStore) -> None:
    generation = seal(made.objects)
    for key in (keys.CATALOG_POINTER, keys.generation(1), generation.tables[0].key):
        data = made.objects.read(key)
        for place in range(0, len(data), 7):
            Path(made.objects.path(key)).write_bytes(flip(data, place))
            with pytest.raises(CorruptObject, match=key):
                newest = newest_generation(made.objects)
                assert newest is not None
                read_commits(made.objects, newest)
        made.objects.replace(key, data)


def test_contents_are_what_stands_whether_sealed_or_not(made: MadeStore) -> None:
    contents = read_contents(made.objects)
    assert [segment.segment for segment in contents.segments] == ["s0000"]
    assert contents.teachers == made.teachers
    assert {name: contents.planned_units(name) for name in contents.teachers} == dict.fromkeys(
        made.teachers, 3
    )


def test_a_store_of_nothing_but_its_root_can_be_sealed_and_opened(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    seal(made.objects)
    store = open_store(made.objects.uri)
    assert (len(store.rows), store.segments, dict(store.teachers)) == (0, (), {})


def test_sealing_reads_each_receipt_once(made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of a million units is sealed by what is new, not by all it has."""
    seal(made.objects)
    made.commit("beta", 1)
    read: list[str] = []
    real = unsealed.read_commit

    def counted(objects: StoreObjects, teacher: object, unit: str) -> object:
        read.append(unit)
        return real(objects, teacher, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(unsealed, "read_commit", counted)
    seal(made.objects)
    assert read == ["s0000-v0000-00000001"]


@pytest.mark.parametrize("key", ["teachers/alpha/probe.parquet", "teachers/alpha/teacher.json"])
@pytest.mark.parametrize("change", ["flipped", "gone"])
def test_a_sealed_manifest_that_was_changed_is_not_sealed_anew(
    made: MadeStore, key: str, change: str
) -> None:
    seal(made.objects)
    before = all_objects(made.objects)
    if change == "gone":
        made.objects.remove(key)
    else:
        made.objects.replace(key, made.objects.read(key)[::-1])
    made.commit_all("beta")
    with pytest.raises(CorruptObject, match=key):
        seal(made.objects)
    made.objects.replace(key, before[key])
    assert seal(made.objects).teachers["beta"].units == 3
    assert verify(made.objects.uri).problems == ()


def test_a_pointer_that_is_damaged_may_be_removed_and_comes_back(made: MadeStore) -> None:
    seal(made.objects)
    pointer = made.objects.read(keys.CATALOG_POINTER)
    made.objects.replace(keys.CATALOG_POINTER, b"{")
    with pytest.raises(CorruptObject, match="Remove it"):
        seal(made.objects)
    made.objects.remove(keys.CATALOG_POINTER)
    assert seal(made.objects).generation == 1
    assert made.objects.read(keys.CATALOG_POINTER) == pointer
