from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from tests.stores import MadeStore, all_objects, flip, sealed_store

from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.reading.buffers import ObjectBuffers
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import (
    CorruptObject,
    IncompleteStore,
    StoreError,
    StoreNotFound,
)
from softcask.storage_schemas.manifest import Generation, ObjectRecord


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """20 rows in units of 8 and then 11 rows, three of all quarantined, two teachers, sealed."""
    made = MadeStore.at(str(tmp_path_factory.mktemp("stores") / "store"))
    made.add_segment(20, quarantined=[5, 6])
    made.add_segment(11, quarantined=[0])
    for name in ("alpha", "beta"):
        made.add_teacher(name)
    made.commit_all()
    seal(made.objects)
    return made


@pytest.fixture
def store(made: MadeStore) -> Store:
    return open_store(made.objects.uri)


def as_dense16(logits_BC: NDArray[np.float32]) -> NDArray[np.float64]:
    """What half precision below the maximum leaves of logits, worked out in float64."""
    row_max_B1 = logits_BC.max(axis=1, keepdims=True).astype(np.float64)
    return (logits_BC - row_max_B1).astype(np.float16).astype(np.float64) + row_max_B1


def softmax_BC(logits_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64) / temperature
    exp_BC = np.exp(scaled_BC - scaled_BC.max(axis=1, keepdims=True))
    return exp_BC / exp_BC.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("teacher", ["alpha", "beta"])
def test_logits_of_rows_come_in_the_order_asked_for_across_segments_and_repeated(
    made: MadeStore, store: Store, teacher: str
) -> None:
    expected_NC = as_dense16(made.readable_logits(teacher))
    rng = np.random.default_rng(1)
    for rows_B in (np.arange(28), rng.permutation(28), rng.integers(0, 28, 100), np.array([27, 0, 27])):
        found_BC = store.logits(teacher, rows_B)
        assert found_BC.dtype == np.float32
        assert np.abs(found_BC - expected_NC[rows_B]).max() < 1e-6
    assert store.logits(teacher, np.array([], dtype=np.int64)).shape == (0, 3)


def test_rows_are_the_readable_ones_with_their_labels_and_ids(made: MadeStore, store: Store) -> None:
    expected = [
        (row["sample_id"], -1 if row["label"] is None else row["label"])
        for _, table in made.segments.values()
        for row in table.to_pylist()
        if row["quarantine"] is None
    ]
    assert list(zip(store.rows.sample_ids, store.rows.labels, strict=True)) == expected
    assert store.class_names == ("class 0", "class 1", "class 2")
    assert store.missing_units("alpha") == []


def test_statistics_cover_every_readable_row_once_and_fit_the_logits(made: MadeStore, store: Store) -> None:
    stats = store.stats("alpha")
    assert stats["sample_id"].to_pylist() == store.rows.sample_ids.tolist()
    best_N = as_dense16(made.readable_logits("alpha")).argmax(axis=1)
    assert [top[0] for top in stats["top_classes"].to_pylist()] == best_N.tolist()


@pytest.mark.parametrize("rows", [[-1], [28], [0, 28], [-5, 3]])
def test_a_row_that_is_not_there_is_refused(store: Store, rows: list[int]) -> None:
    with pytest.raises(StoreError, match="which has 28"):
        store.logits("alpha", np.array(rows))


def test_an_unknown_teacher_is_answered_with_the_known_ones(store: Store) -> None:
    for ask in (lambda: store.logits("gamma", np.array([0])), lambda: store.to_pandas("gamma")):
        with pytest.raises(StoreError, match="'gamma'; it has: alpha, beta"):
            ask()


def test_a_store_is_opened_and_read_without_any_listing(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing a folder of a million objects takes minutes on some filesystems."""

    def listed(*_: Any, **__: Any) -> Any:
        pytest.fail("something was listed")

    for name in ("ls", "find", "glob", "walk", "info", "exists"):
        monkeypatch.setattr(LocalFileSystem, name, listed)
    store = open_store(made.objects.uri)
    store.logits("alpha", np.arange(28))
    store.stats("beta")


def shards_opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts from here on how often each shard of logits is mapped or fetched."""
    opened: Counter[str] = Counter()

    def counted(real: Callable[[ObjectBuffers, ObjectRecord], Any]) -> Callable[..., Any]:
        def count(self: ObjectBuffers, record: ObjectRecord) -> Any:
            if "/logits/c/" in record.key:
                opened[record.key] += 1
            return real(self, record)

        return count

    for name in ("file", "_in_memory"):
        monkeypatch.setattr(ObjectBuffers, name, counted(getattr(ObjectBuffers, name)))
    return opened


def test_a_unit_is_opened_once_while_there_is_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = shards_opened(monkeypatch)
    for _ in range(3):
        store.logits("alpha", np.arange(28))
    assert len(opened) == 5  # units of 8, 8, 4 and of 8, 3 rows
    assert set(opened.values()) == {1}


def test_what_is_fetched_is_kept_up_to_the_bound_and_what_was_used_longest_ago_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed_store("memory://bounded", rows=24, quarantined=())
    # A unit is two shards of one chunk of 8 rows, each with two checksums, and an index of 16 + 4 bytes.
    unit_bytes = 8 * (3 * 2 + 4) + 2 * (2 * 4 + 16 + 4)
    store = open_store("memory://bounded", cache_bytes=2 * unit_bytes)
    read = shards_opened(monkeypatch)
    units = {unit: np.array([row]) for unit, row in (("a", 0), ("b", 8), ("c", 16))}
    for unit in "abab":
        store.logits("alpha", units[unit])
    assert sum(read.values()) == 2
    store.logits("alpha", units["a"])
    store.logits("alpha", units["c"])  # b goes
    store.logits("alpha", units["a"])
    assert sum(read.values()) == 3
    store.logits("alpha", units["b"])
    assert sum(read.values()) == 4


def test_a_cache_smaller_than_a_unit_still_serves(made: MadeStore) -> None:
    store = open_store(made.objects.uri, cache_bytes=0)
    expected_NC = as_dense16(made.readable_logits("beta"))
    assert np.abs(store.logits("beta", np.arange(28)) - expected_NC).max() < 1e-6


def test_a_store_is_pickled_without_its_cache_and_reads_the_same(made: MadeStore, store: Store) -> None:
    expected_NC = store.logits("alpha", np.arange(28))
    sent = pickle.dumps(store)
    assert len(sent) < 500
    again = pickle.loads(sent)  # noqa: S301
    assert np.array_equal(again.logits("alpha", np.arange(28)), expected_NC)
    assert repr(again) == repr(store) == f"Store({made.objects.uri!r}, rows=28, teachers=['alpha', 'beta'])"


def test_threads_share_a_store(made: MadeStore) -> None:
    store = open_store(made.objects.uri, cache_bytes=100)
    expected = {name: as_dense16(made.readable_logits(name)) for name in ("alpha", "beta")}

    def read(seed: int) -> float:
        rng = np.random.default_rng(seed)
        teacher, rows_B = ("alpha", "beta")[seed % 2], rng.integers(0, 28, 40)
        return float(np.abs(store.logits(teacher, rows_B) - expected[teacher][rows_B]).max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(read, range(100))) < 1e-6


def test_a_place_without_a_store_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for uri in (str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "file"), "memory://nowhere"):
        with pytest.raises(StoreNotFound, match=f"no softcask store at {uri}"):
            open_store(uri)


@pytest.fixture
def partial(tmp_path: Path) -> MadeStore:
    """Units 0 and 2 of alpha are committed; nothing is sealed."""
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(20)
    made.add_teacher("alpha")
    made.commit("alpha", 0)
    made.commit("alpha", 2)
    return made


def test_a_store_that_is_not_sealed_is_refused_unless_partial_ones_are_allowed(partial: MadeStore) -> None:
    with pytest.raises(IncompleteStore, match="precompute` again, or open it with allow_partial=True"):
        open_store(partial.objects.uri)
    store = open_store(partial.objects.uri, allow_partial=True)
    assert store.generation == 0
    assert store.missing_units("alpha") == [("s0000", 1)]
    rows_B = np.array([0, 7, 16, 19])
    expected_BC = as_dense16(partial.readable_logits("alpha"))[rows_B]
    assert np.abs(store.logits("alpha", rows_B) - expected_BC).max() < 1e-6


def test_a_row_whose_unit_is_not_committed_raises_with_what_is_missing(partial: MadeStore) -> None:
    seal(partial.objects)
    for allowed in (False, True):
        store = open_store(partial.objects.uri, allow_partial=allowed)
        with pytest.raises(
            IncompleteStore, match=r"unit 1 of teacher 'alpha' \(segment s0000.*; 1 of its units are missing"
        ):
            store.logits("alpha", np.array([0, 8]))


def test_a_sealed_generation_is_served_while_more_is_committed(partial: MadeStore) -> None:
    seal(partial.objects)
    partial.commit("alpha", 1)
    assert open_store(partial.objects.uri).missing_units("alpha") == [("s0000", 1)]
    assert open_store(partial.objects.uri, allow_partial=True).missing_units("alpha") == []


def test_a_store_of_nothing_but_its_root_opens_as_a_partial_one(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    store = open_store(made.objects.uri, allow_partial=True)
    assert (len(store.rows), dict(store.teachers)) == (0, {})
    assert len(store.to_pandas()) == 0


def read_everything(uri: str) -> None:
    store = open_store(uri)
    for teacher in store.teachers:
        store.logits(teacher, np.arange(len(store.rows)))
        store.stats(teacher)


READ = ("softcask.json", "catalog/", "segment.json", "rows.parquet", "teacher.json", "/c/", "/stats/")


def test_a_flipped_byte_in_anything_that_is_read_raises_and_names_the_object(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "store"), teachers=["alpha"])
    standing = {key: data for key, data in all_objects(made.objects).items() if any(k in key for k in READ)}
    rng = np.random.default_rng(0)
    for key, data in standing.items():
        for place in {0, len(data) - 1, *rng.integers(0, len(data), 12).tolist()}:
            Path(made.objects.path(key)).write_bytes(flip(data, place, int(rng.integers(8))))
            with pytest.raises(CorruptObject, match=key):
                read_everything(made.objects.uri)
        Path(made.objects.path(key)).write_bytes(data)
    read_everything(made.objects.uri)


def test_an_object_that_is_gone_raises_and_is_named(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "store"), teachers=["alpha"])
    for key, data in all_objects(made.objects).items():
        if any(k in key for k in READ[2:]):
            Path(made.objects.path(key)).unlink()
            with pytest.raises(CorruptObject, match=f"{key} was committed to .* and is gone"):
                read_everything(made.objects.uri)
            Path(made.objects.path(key)).write_bytes(data)


def test_a_whole_shard_in_the_place_of_another_raises(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "store"), quarantined=())
    group = keys.logits_group("alpha", "s0000", 0)
    victim = f"{group}/logits/c/0/0"
    for other in (f"{group}/logits/c/1/0", f"{keys.logits_group('beta', 's0000', 0)}/logits/c/0/0"):
        data = made.objects.read(victim)
        assert len(data) == len(made.objects.read(other))
        made.objects.replace(victim, made.objects.read(other))
        with pytest.raises(CorruptObject, match=victim):
            read_everything(made.objects.uri)
        made.objects.replace(victim, data)


def reseal(made: MadeStore, **changes: Any) -> None:
    """A generation by somebody who knows the format and means no good."""
    newest = newest_generation(made.objects)
    assert newest is not None
    forged = Generation(**{**newest.model_dump(), "generation": newest.generation + 1, **changes})
    made.objects.publish(keys.generation(forged.generation), forged.to_bytes())


@pytest.mark.parametrize("key", ["../secret", "/etc/hostname", "catalog/../../secret", "s3://bucket/secret"])
@pytest.mark.parametrize("field", ["tables", "manifests"])
def test_a_catalog_that_names_objects_outside_the_store_is_not_followed(
    tmp_path: Path, field: str, key: str
) -> None:
    made = sealed_store(str(tmp_path / "store"))
    (tmp_path / "secret").write_bytes(b"secret")
    named = f"{key}/teacher.json" if field == "manifests" else key
    reseal(made, **{field: [ObjectRecord.of(named, b"secret")]})
    with pytest.raises(StoreError, match="not trusted"):
        open_store(made.objects.uri)


def with_commits(made: MadeStore, change: dict[str, Any]) -> None:
    """Seal the same commits with fields of the first one changed."""
    newest = newest_generation(made.objects)
    assert newest is not None
    (record,) = newest.tables
    table = tables.from_bytes(made.objects.read(record.key), tables.COMMITS, record.key)
    first, *rest = table.to_pylist()
    data = tables.to_bytes(pa.Table.from_pylist([{**first, **change}, *rest], schema=tables.COMMITS))
    key = keys.generation_commits(2, "00000000")
    made.objects.publish(key, data)
    reseal(made, tables=[ObjectRecord.of(key, data)])


@pytest.mark.parametrize("change", [{"rows": 2**47}, {"rows": 19}, {"quarantined": 0}, {"labelled": 3}])
def test_a_segment_that_miscounts_its_rows_is_refused_before_anything_is_counted_by_it(
    tmp_path: Path, change: dict[str, int]
) -> None:
    made = sealed_store(str(tmp_path / "store"))
    key = keys.segment_manifest("s0000")
    forged = made.segments["s0000"][0].model_copy(update=change).to_bytes()
    made.objects.replace(key, forged)
    newest = newest_generation(made.objects)
    assert newest is not None
    reseal(made, manifests=[ObjectRecord.of(key, forged), *(r for r in newest.manifests if r.key != key)])
    asks: tuple[Callable[[Store], object], ...] = (
        lambda store: store.rows,
        lambda store: store.missing_units("alpha"),
        Store.to_pandas,
    )
    for ask in asks:
        with pytest.raises(CorruptObject, match=r"rows.parquet holds|which the segment does not"):
            ask(open_store(made.objects.uri))


OUTSIDE = {"key": "../secret", "size": 6, "crc32c": ObjectRecord.of("", b"secret").crc32c}


@pytest.mark.parametrize(
    "change",
    [
        {"objects": [OUTSIDE]},
        {"objects": []},
        {"objects": [{**OUTSIDE, "crc32c": "xyz"}]},
        {"objects": [{**OUTSIDE, "size": None}]},
        {"stop": 10**12},
        {"start": -1},
        {"index": 10**12},
        {"index": 1},
    ],
)
def test_commits_that_do_not_fit_the_store_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    made = sealed_store(str(tmp_path / "store"), teachers=["alpha"])
    with_commits(made, change)
    with pytest.raises(CorruptObject):
        read_everything(made.objects.uri)


def test_a_store_in_memory_is_read_as_one_on_a_disk() -> None:
    made = sealed_store("memory://reader")
    store = open_store("memory://reader")
    expected_NC = as_dense16(made.readable_logits("alpha"))
    assert np.abs(store.logits("alpha", np.arange(19)) - expected_NC).max() < 1e-6
    assert pickle.loads(pickle.dumps(store)).generation == 1  # noqa: S301


# --- pandas


def test_a_frame_has_a_row_a_teacher_and_sample_and_a_column_a_class(made: MadeStore, store: Store) -> None:
    frame = store.to_pandas()
    assert frame.columns.tolist() == ["teacher", "sample_id", "label", "class 0", "class 1", "class 2"]
    assert frame["teacher"].tolist() == ["alpha"] * 28 + ["beta"] * 28
    assert frame["sample_id"].tolist() == store.rows.sample_ids.tolist() * 2
    labels = [None if label is pd.NA else label for label in frame["label"].tolist()]
    assert labels == [None if label < 0 else label for label in store.rows.labels.tolist()] * 2
    for name in ("alpha", "beta"):
        values_NC = frame[frame["teacher"] == name].filter(like="class").to_numpy()
        assert np.abs(values_NC - as_dense16(made.readable_logits(name))).max() < 1e-6


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_a_frame_of_soft_targets_equals_what_zarr_and_pandas_read_without_softcask(
    made: MadeStore, store: Store, temperature: float
) -> None:
    root, parts = Path(made.objects.uri), []
    for segment in ("s0000", "s0001"):
        rows = pd.read_parquet(root / f"transfer_set/{segment}/rows.parquet")
        group = zarr.open_group(root / f"teachers/beta/logits/{segment}/v0000", mode="r")
        logits_BC = np.asarray(group["logits"], dtype=np.float64)
        assert np.isnan(logits_BC).all(axis=1).tolist() == rows["quarantine"].notna().tolist()
        rows[["p0", "p1", "p2"]] = softmax_BC(logits_BC, temperature)
        parts.append(rows[rows["quarantine"].isna()])
    expected = pd.concat(parts)
    frame = store.to_pandas("beta", temperature=temperature)
    assert frame["sample_id"].tolist() == expected["sample_id"].tolist()
    difference_NC = frame.filter(like="class").to_numpy() - expected[["p0", "p1", "p2"]].to_numpy()
    assert np.abs(difference_NC).max() < 1e-6
    assert set(frame["teacher"]) == {"beta"}


def test_a_frame_of_some_samples_has_them_in_the_order_asked_for(store: Store) -> None:
    asked = ["id-030", "id-000", "id-030"]
    frame = store.to_pandas(["beta", "alpha"], sample_ids=asked)
    assert frame["sample_id"].tolist() == asked * 2
    assert frame["teacher"].tolist() == ["beta"] * 3 + ["alpha"] * 3
    assert (frame.iloc[0, 3:] == frame.iloc[2, 3:]).all()
    assert len(store.to_pandas(sample_ids=[])) == 0


@pytest.mark.parametrize("sample_id", ["nobody", "id-005"])  # the second is quarantined
def test_an_unknown_sample_is_named(store: Store, sample_id: str) -> None:
    with pytest.raises(StoreError, match=rf"no row '{sample_id}' \(1 of the ids"):
        store.to_pandas(sample_ids=["id-000", sample_id])


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.49, 20.1, math.nan, math.inf])
def test_a_temperature_that_the_codec_makes_no_claim_for_is_refused(store: Store, temperature: float) -> None:
    with pytest.raises((StoreError, ValueError), match="temperature"):
        store.to_pandas("alpha", temperature=temperature)


def test_classes_that_are_called_what_the_frame_calls_its_own_columns_are_told_apart(tmp_path: Path) -> None:
    names = ["teacher", "label", "dog"]
    made = MadeStore.at(str(tmp_path / "store"), class_names=names)
    made.add_segment(4)
    made.add_teacher("alpha")
    made.commit_all()
    seal(made.objects)
    frame = open_store(made.objects.uri).to_pandas()
    assert frame.columns.tolist() == [
        *("teacher", "sample_id", "label"),
        *("teacher (class)", "label (class)", "dog"),
    ]
    assert frame["teacher"].tolist() == ["alpha"] * 4
    assert np.abs(frame.iloc[:, 3:].to_numpy() - as_dense16(made.readable_logits("alpha"))).max() < 1e-6


def test_the_zarr_group_of_a_store_that_is_no_folder_is_read_too_and_not_written() -> None:
    made = sealed_store("memory://zarr-group", quarantined=())
    group = open_store("memory://zarr-group").zarr_group("beta")
    decoded_BC = group["logits"][:].astype(np.float64) + group["row_max"][:][:, None]  # type: ignore[index]
    np.testing.assert_array_equal(decoded_BC, as_dense16(made.readable_logits("beta")))
    with pytest.raises(ValueError, match="read-only|read only"):
        group["row_max"][0] = 0  # type: ignore[index]


def test_the_zarr_group_is_the_plain_one(made: MadeStore, store: Store) -> None:
    group = store.zarr_group("alpha", "s0001")
    assert np.asarray(group["logits"]).shape == (11, 3)
    assert json.loads(json.dumps(dict(group.attrs)))["softcask"]["teacher"] == "alpha"
    with pytest.raises(StoreError, match="no teacher 'gamma'"):
        store.zarr_group("gamma")
