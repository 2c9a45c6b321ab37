from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.scaled_codec import add_scaled_teacher
from tests.stores import (
    Killed,
    MadeStore,
    all_objects,
    flip,
    mortal,
    pin_by_hand,
    sealed_store,
    teacher_manifest,
)

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.layout import array_layouts
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import reseal, seal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import StoreAccess, StoreNotFound
from softcask.storage_schemas.manifest import (
    Generation,
    ObjectRecord,
    Pointer,
    RootManifest,
    SegmentManifest,
    UnitCommit,
)
from softcask.storage_schemas.parquet_layout import PartLayout

UNIT = "s0000-v0000-00000000"
RECEIPT = keys.commit("alpha", UNIT)
SHARD = f"{keys.logits_group('alpha', 's0000', 0)}/logits/c/0/0"
STATS = keys.stats_part("alpha", "s0000", 0, 0)
ROWS = keys.segment_rows("s0000")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return sealed_store(str(tmp_path_factory.mktemp("store") / "s"))


def damaged(made: MadeStore, key: str, data: bytes | None) -> list[str]:
    """Keys with problems while `key` holds other data, or is gone."""
    path = Path(made.objects.path(key))
    whole = path.read_bytes()
    try:
        path.unlink() if data is None else path.write_bytes(data)
        return [problem.key for problem in verify(made.objects.uri).problems]
    finally:
        path.write_bytes(whole)


def test_a_whole_store_has_no_problem_and_every_object_is_counted(made: MadeStore) -> None:
    steps: list[tuple[int, int, int]] = []
    report = verify(made.objects.uri, progress=lambda *step: steps.append(step))
    standing = all_objects(made.objects)
    assert report.problems == ()
    assert (report.objects, report.bytes) == (len(standing), sum(map(len, standing.values())))
    assert report.orphans == 0
    assert [done for done, _, _ in steps] == list(range(1, len(standing) + 1))
    assert steps[-1] == (report.objects, report.objects, report.bytes)


def test_a_flipped_byte_in_any_object_is_found_and_the_object_named(made: MadeStore) -> None:
    for key, data in all_objects(made.objects).items():
        for place in {0, len(data) // 2, len(data) - 1}:
            assert key in damaged(made, key, flip(data, place)), (key, place)


def test_a_missing_object_is_found_and_named(made: MadeStore) -> None:
    for key in all_objects(made.objects):
        # The pointer is a hint, and what a run measured is spoken of nowhere.
        expected = [] if key.startswith(("catalog/newest", "runs/")) else [key]
        assert damaged(made, key, None) == expected


def test_a_place_without_a_store_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("not ours")
    for uri in (tmp_path, tmp_path / "nowhere", tmp_path / "letters.txt"):
        with pytest.raises(StoreNotFound, match="softcask.json"):
            verify(str(uri))


@pytest.fixture
def own(tmp_path: Path) -> MadeStore:
    """A store that a test may spoil: one teacher, unit 0 committed, nothing sealed."""
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(20, quarantined=[5])
    made.add_teacher("alpha")
    made.commit("alpha", 0)
    return made


def problems(made: MadeStore) -> dict[str, str]:
    return {problem.key: problem.message for problem in verify(made.objects.uri).problems}


def test_what_is_committed_and_not_sealed_is_checked_too(own: MadeStore) -> None:
    assert problems(own) == {}
    for key in (RECEIPT, SHARD, STATS):
        data = own.objects.read(key)
        own.objects.replace(key, flip(data, len(data) // 2))
        assert list(problems(own)) == [key]
        own.objects.replace(key, data)


@pytest.mark.parametrize("documents", [True, False])
def test_every_damage_is_found_at_once_and_none_hides_another(made: MadeStore, documents: bool) -> None:
    """All documents, and then all that they speak of (which cannot be known when they are damaged)."""
    standing = all_objects(made.objects)
    chosen = {
        key for key in standing if (key.endswith(".json") and not key.endswith("zarr.json")) == documents
    }
    for key in chosen:
        Path(made.objects.path(key)).write_bytes(flip(standing[key], len(standing[key]) // 3))
    found = problems(made)
    for key in chosen:
        Path(made.objects.path(key)).write_bytes(standing[key])
    assert set(found) == chosen
    assert all(key in message for key, message in found.items())


def test_a_whole_object_in_the_place_of_another_is_found(made: MadeStore) -> None:
    standing = all_objects(made.objects)
    for key, data in standing.items():
        twin = key.replace("alpha", "beta")
        if twin != key and standing[twin] != data:
            assert twin in damaged(made, twin, data), twin


def test_what_a_killed_writer_left_is_an_orphan_and_no_problem(own: MadeStore) -> None:
    with pytest.raises(Killed):
        own.commit("alpha", 1, objects=mortal(own.objects, 2, after=True))
    own.objects.fs.pipe_file(f"{own.objects.root}/teachers/alpha/commits/.tmp-x.json-12", b"{")
    own.objects.publish("notes/read me.txt", b"by the owner of the store")
    report = verify(own.objects.uri)
    assert (report.problems, report.orphans) == ((), 4)  # two shards, a temporary, a note


def test_a_teacher_that_was_never_pinned_and_left_metadata_is_an_orphan(own: MadeStore) -> None:
    own.objects.publish("teachers/gamma/logits/s0000/v0000/zarr.json", b"{}")
    own.objects.publish("teachers/gamma/probe.parquet", b"")
    report = verify(own.objects.uri)
    assert (report.problems, report.orphans) == ((), 2)


def test_a_lost_root_does_not_hide_the_rest(own: MadeStore) -> None:
    Path(own.objects.path(keys.ROOT)).unlink()
    own.objects.replace(SHARD, b"")
    assert problems(own)[keys.ROOT] == "softcask.json is missing"
    assert set(problems(own)) == {keys.ROOT, SHARD}


def test_a_store_in_memory_is_verified_as_one_on_a_disk() -> None:
    made = sealed_store("memory://verify")
    standing = all_objects(made.objects)
    report = verify("memory://verify")
    assert (report.problems, report.objects, report.orphans) == ((), len(standing), 0)
    for key in (SHARD, RECEIPT, keys.generation(1)):
        made.objects.replace(key, flip(standing[key], 7))
        assert key in problems(made)
        made.objects.replace(key, standing[key])


# --- objects whose checksums are right and whose content is not: what only malice or a bug makes


def recommit(made: MadeStore, changed: dict[str, bytes], **fields: object) -> None:
    """Replace objects of unit 0, and its receipt by one that records them."""
    commit = UnitCommit.from_bytes(made.objects.read(RECEIPT), RECEIPT)
    for key, data in changed.items():
        made.objects.replace(key, data)
    records = [
        ObjectRecord.of(record.key, made.objects.read(record.key)).model_dump() for record in commit.objects
    ]
    forged = UnitCommit(**{**commit.model_dump(), "objects": records, **fields})
    made.objects.replace(RECEIPT, forged.to_bytes())


def shard(made: MadeStore, row: int, value: float) -> bytes:
    layout = array_layouts(made.teachers["alpha"], made.segments["s0000"][0])["logits"]
    values_BC = layout.decode_shard(made.objects.read(SHARD), 8, SHARD).copy()
    values_BC[row, 1] = value
    return layout.encode_shard(values_BC)


@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (3, np.nan, "no finite values for row 3"),
        (3, np.inf, "no finite values for row 3"),
        (5, 1.0, "values, though quarantined for row 5"),
    ],
)
def test_a_shard_with_nan_where_a_row_is_readable_or_values_where_none_is_is_found(
    own: MadeStore, row: int, value: float, said: str
) -> None:
    recommit(own, {SHARD: shard(own, row, value)})
    assert list(problems(own)) == [SHARD]
    assert said in problems(own)[SHARD]


def test_shards_and_tables_that_do_not_decode_are_found_though_they_are_as_committed(own: MadeStore) -> None:
    recommit(own, {SHARD: b"not a shard", STATS: b"not a table"})
    assert list(problems(own)) == [SHARD, STATS]


def test_statistics_of_other_rows_are_found(own: MadeStore) -> None:
    own.commit("alpha", 1)
    recommit(own, {STATS: own.objects.read(keys.stats_part("alpha", "s0000", 0, 1))})
    assert "8 rows, expected 7" in problems(own)[STATS]
    recommit(own, {}, rows=8)
    assert "other rows" in problems(own)[STATS]


@pytest.mark.parametrize(
    "fields",
    [
        {"start": 1},
        {"stop": 20},
        {"unit": "s0000-v0000-00000001"},
        {"teacher": "beta"},
        {"fingerprint": "sha256:00"},
        {"objects": []},
        {"objects": [{"key": "../secret", "size": 6, "crc32c": "00000000"}]},
    ],
)
def test_a_receipt_that_does_not_fit_its_place_is_found(own: MadeStore, fields: dict[str, object]) -> None:
    recommit(own, {}, **fields)
    assert RECEIPT in problems(own)


def test_receipts_of_units_that_no_segment_has_are_found(own: MadeStore) -> None:
    for unit in ("s0000-v0000-00000003", "s0007-v0000-00000000"):
        own.objects.publish(keys.commit("alpha", unit), own.objects.read(RECEIPT))
    own.objects.publish("teachers/alpha/commits/notes.json", b"{}")
    assert set(problems(own)) == {
        keys.commit("alpha", "s0000-v0000-00000003"),
        keys.segment_manifest("s0007"),
        "teachers/alpha/commits/notes.json",
    }


def test_a_segment_that_miscounts_its_rows_is_found(own: MadeStore) -> None:
    key = keys.segment_manifest("s0000")
    segment = SegmentManifest.from_bytes(own.objects.read(key), key)
    own.objects.replace(key, segment.model_copy(update={"quarantined": 2}).to_bytes())
    assert list(problems(own)) == [ROWS]


def test_documents_under_another_ones_name_are_found(own: MadeStore) -> None:
    own.objects.publish(keys.teacher_manifest("beta"), own.objects.read(keys.teacher_manifest("alpha")))
    own.objects.publish(keys.probe("beta"), own.objects.read(keys.probe("alpha")))
    assert "was moved or copied" in problems(own)[keys.teacher_manifest("beta")]


def test_a_codec_that_is_not_known_is_a_problem_of_its_teacher(own: MadeStore) -> None:
    spec = teacher_manifest("alpha").codec.model_copy(update={"name": "dense3"})
    teacher = teacher_manifest("alpha").model_copy(update={"codec": spec})
    own.objects.replace(keys.teacher_manifest("alpha"), teacher.to_bytes())
    assert "dense3" in problems(own)[keys.teacher_manifest("alpha")]


def test_a_gap_in_the_generations_is_found_and_a_lost_pointer_is_not_one(made: MadeStore) -> None:
    assert damaged(made, keys.CATALOG_POINTER, None) == []
    far = Pointer(generation=10**8 - 1).to_bytes()
    assert damaged(made, keys.CATALOG_POINTER, far) == [keys.generation(2)]


def test_a_catalog_that_names_objects_outside_the_store_is_found(own: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    generation = seal(own.objects)
    named = [ObjectRecord.of("../secret", b"secret")]
    for field in ("tables", "manifests"):
        forged = Generation(**{**generation.model_dump(), field: named})
        own.objects.replace(keys.generation(1), forged.to_bytes())
        assert "not trusted" in problems(own)[keys.generation(1)]


def test_a_newer_format_is_one_problem_more(own: MadeStore) -> None:
    own.objects.replace(keys.ROOT, b'{"softcask": "store", "format_version": 2}')
    assert "Upgrade softcask" in problems(own)[keys.ROOT]


def test_what_a_sealed_table_says_of_objects_is_checked_where_receipts_are_lost(made: MadeStore) -> None:
    """The catalog alone knows them then."""
    receipt = Path(made.objects.path(RECEIPT))
    whole = receipt.read_bytes()
    receipt.unlink()
    try:
        assert damaged(made, SHARD, b"") == [RECEIPT, SHARD]
    finally:
        receipt.write_bytes(whole)


SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "halved": lambda data: data[: len(data) // 2],
    "doubled": lambda data: data + data,
    "zeros": lambda data: bytes(len(data)),
    "json": lambda _: b'{"softcask": [], "format_version": "one", "checksum": 3}\n',
    "parquet": lambda _: tables.to_bytes(tables.PROBE.empty_table()),
    "a root": lambda _: RootManifest(class_names=("a", "b")).to_bytes(),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_malformed_store_never_ends_in_anything_but_a_report(made: MadeStore, data: st.DataObject) -> None:
    standing = all_objects(made.objects)
    chosen = data.draw(st.lists(st.sampled_from(sorted(standing)), min_size=1, max_size=6, unique=True))
    try:
        for key in chosen:
            spoilt = SPOIL[data.draw(st.sampled_from(sorted(SPOIL)))](standing[key])
            Path(made.objects.path(key)).write_bytes(spoilt)
        changed = {key for key in chosen if made.objects.read(key) != standing[key]}
        # A document that cannot be read takes what it alone speaks of out of sight; itself it cannot hide.
        seen = set(problems(made))
        assert bool(seen) == bool(changed)
        documents = {key for key in changed if key.endswith(".json") and "zarr.json" not in key}
        # Another whole root is told by the sealed generation alone, which may be spoilt too.
        if made.objects.read(keys.ROOT) == SPOIL["a root"](b""):
            documents -= {keys.ROOT}
        assert seen >= documents
    finally:
        for key in chosen:
            Path(made.objects.path(key)).write_bytes(standing[key])


def test_a_folder_where_an_object_belongs_is_a_problem(own: MadeStore) -> None:
    path = Path(own.objects.path(SHARD))
    path.unlink()
    (path / "inside").mkdir(parents=True)
    assert list(problems(own)) == [SHARD]


# --- logits in Parquet, with an array that the codec keeps once

PART = keys.logits_part("gamma", "s0000", 0, 0)


@pytest.fixture
def with_parquet(own: MadeStore, monkeypatch: pytest.MonkeyPatch) -> MadeStore:
    add_scaled_teacher(own, "gamma", monkeypatch)
    own.commit_all("gamma")
    return own


def test_logits_in_parquet_and_arrays_kept_once_are_checked_like_all_else(with_parquet: MadeStore) -> None:
    seal(with_parquet.objects)
    standing = all_objects(with_parquet.objects)
    report = verify(with_parquet.objects.uri)
    assert (report.problems, report.objects, report.orphans) == ((), len(standing), 0)
    (array,) = (key for key in standing if key.startswith("teachers/gamma/codec/steps-"))
    for key in (array, PART, keys.logits_part("gamma", "s0000", 0, 2)):
        for place in range(0, len(standing[key]), 41):
            assert damaged(with_parquet, key, flip(standing[key], place)) == [key]
        assert damaged(with_parquet, key, None) == [key]


def recommit_part(made: MadeStore, rows: list[int], codes: int) -> dict[str, str]:
    """Put a part of these rows in the place of unit 0's, its receipt changed to record it."""
    layout = PartLayout(columns=codec_from(made.teachers["gamma"].codec).columns(3))
    tops = np.array([b"1.0"] * len(rows), dtype=object)
    columns = {"codes": np.full((len(rows), 3), codes, dtype="<i2"), "top": tops}
    data = layout.encode_part(np.array(rows), columns)
    made.objects.replace(PART, data)
    receipt = keys.commit("gamma", UNIT)
    commit = UnitCommit.from_bytes(made.objects.read(receipt), receipt)
    records = [ObjectRecord.of(PART, data), *commit.objects[1:]]
    made.objects.replace(receipt, commit.model_copy(update={"objects": tuple(records)}).to_bytes())
    return problems(made)


READABLE = [0, 1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ("rows", "codes", "said"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 0, "holds 8 rows, other ones than the 7 readable"),
        ([0, 1, 2, 3, 4, 5, 6], 0, "holds 7 rows, other ones"),
        ([0, 1, 2, 3, 4, 6, 9], 0, "other rows than 0 to 7 in order"),
        (READABLE, 1, "a code above the maximum"),
    ],
)
def test_a_part_of_other_rows_or_of_values_that_no_encoder_writes_is_found(
    with_parquet: MadeStore, rows: list[int], codes: int, said: str
) -> None:
    assert said in recommit_part(with_parquet, rows, codes)[PART]


def test_a_teacher_without_statistics_has_none_to_check(own: MadeStore) -> None:
    teacher = teacher_manifest("delta").model_copy(update={"stats": False})
    own.teachers["delta"] = teacher
    own.logits["delta", "s0000"] = own.logits["alpha", "s0000"]
    pin_by_hand(own.objects, teacher, [own.segments["s0000"][0]])
    own.commit_all("delta")
    seal(own.objects)
    assert problems(own) == {}
    assert not any(key.startswith("teachers/delta/stats/") for key in all_objects(own.objects))


# --- several generations


def test_what_a_later_generation_made_anew_is_not_held_against_an_older_one(made: MadeStore) -> None:
    """Another device gives other last bits; the receipt and the newest generation count."""
    own = sealed_store(f"{made.objects.uri}-anew")
    own.logits["alpha", "s0000"] = own.logits["alpha", "s0000"] * np.float32(1.01)
    for key in (RECEIPT, SHARD, STATS):
        own.objects.remove(key)
    own.commit("alpha", 0)
    assert RECEIPT in problems(own)
    reseal(own.objects, stale={("alpha", UNIT)})
    assert problems(own) == {}
    standing = own.objects.read(SHARD)
    own.objects.replace(SHARD, flip(standing, 9))
    assert list(problems(own)) == [SHARD]


def test_old_generations_may_be_taken_away_from_the_oldest_on(own: MadeStore) -> None:
    for index in (1, 2):
        seal(own.objects)
        own.commit("alpha", index)
    assert seal(own.objects).generation == 3
    own.objects.remove(keys.generation(1))
    assert problems(own) == {}
    own.objects.remove(keys.CATALOG_POINTER)
    assert problems(own) == {}
    assert open_store(own.objects.uri).generation == 3
    own.objects.publish(keys.CATALOG_POINTER, Pointer(generation=1).to_bytes())
    assert open_store(own.objects.uri).generation == 3


def test_what_cannot_be_read_is_told_from_what_is_damaged(
    own: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: StoreObjects, key: str) -> bytes:
        if key == SHARD:
            raise StoreAccess("no permission")
        return read(self, key)

    read = StoreObjects.read
    monkeypatch.setattr(StoreObjects, "read", refused)
    Path(own.objects.path(STATS)).unlink()
    own.objects.replace(keys.probe("alpha"), b"")
    kinds = {problem.key: problem.kind for problem in verify(own.objects.uri).problems}
    assert kinds == {SHARD: "unread", STATS: "missing", keys.probe("alpha"): "damaged"}
