from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stores import Killed, MadeStore, all_objects, flip, mortal, sealed_store, teacher_manifest

from softcask.pipeline.store.layout import array_layouts
from softcask.pipeline.store.sealing import seal
from softcask.pipeline.store.verify import verify
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import StoreNotFound
from softcask.storage_schemas.manifest import (
    Generation,
    ObjectRecord,
    Pointer,
    RootManifest,
    SegmentManifest,
    UnitCommit,
)

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
