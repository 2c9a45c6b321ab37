"""Rows from every container and place, in every order, by every kind of process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.stores import MadeStore, flip

from softcask.pipeline.store.reading import arena, mapped
from softcask.pipeline.store.reading.buffers import ObjectBuffers
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys, zarr_layout
from softcask.storage_schemas.codecs.base import Column, Container, Decoded
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.registry import CODECS
from softcask.storage_schemas.errors import CorruptObject, IncompleteStore, StoreError
from softcask.storage_schemas.manifest import CodecSpec

ROWS, SHORT, CLASSES = 300, 43, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class InParquet(Dense16):
    """Half precision in Parquet parts, one column of any length; right at the temperature asked for alone."""

    name: ClassVar[str] = "in_parquet"
    container: ClassVar[Container] = "parquet"
    keeps_logits: ClassVar[bool] = False

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        plain = Dense16.columns(self, num_classes)
        return (*plain, Column(name="note", dtype=np.dtype(object), row_shape=(), dimension_names=("row",)))

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        notes = np.array([b"*" * (row % 5) for row in range(len(logits_BC))], dtype=object)
        return {**Dense16.encode(self, logits_BC), "note": notes}

    def decode(self, columns: Mapping[str, NDArray[Any]], temperature: float = 1.0) -> Decoded:
        assert all(set(note) <= set(b"*") for note in columns["note"])
        return Dense16.decode(self, columns, temperature)


SPECS = {
    "plain": CodecSpec(name="dense16"),
    "blosc": CodecSpec(name="dense16", compression="blosc"),
    "parquet": CodecSpec(name="in_parquet", container="parquet"),
}


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks of four rows, 16 a unit; and a codec in Parquet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "CHUNK_BYTES", 4 * 2 * CLASSES)
        patch.setitem(CODECS, InParquet.name, InParquet)
        yield


def made_store(uri: str, kind: str) -> MadeStore:
    """Two segments, 343 rows in units of 64 with some quarantined, two teachers."""
    made = MadeStore.at(uri, class_names=[f"class {number}" for number in range(CLASSES)])
    made.unit_rows = 64
    made.add_segment(ROWS - 52, quarantined=[5, 6, 100])
    made.add_segment(SHORT, quarantined=[0])
    for name in ("alpha", "beta"):
        made.add_teacher(name, codec=SPECS[kind])
    made.commit_all()
    seal(made.objects)
    return made


@pytest.fixture(scope="module", params=[(kind, place) for kind in SPECS for place in ("disk", "memory")])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    kind, place = request.param
    folder = str(tmp_path_factory.mktemp(kind)) if place == "disk" else f"memory://reading-{kind}"
    return made_store(folder, kind)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return made_store(str(tmp_path_factory.mktemp("plain")), "plain")


def halves(logits_BC: NDArray[np.float32]) -> NDArray[np.float16]:
    """What half precision below the maximum leaves, worked out in float64."""
    wide_BC = logits_BC.astype(np.float64)
    return (wide_BC - wide_BC.max(axis=1, keepdims=True)).astype(np.float16)


def orders(rows: int) -> list[NDArray[np.int64]]:
    """Ways to ask: forwards, backwards, at random, one, none, parts that begin and end anywhere."""
    rng = np.random.default_rng(0)
    return [
        np.arange(rows),
        np.arange(rows)[::-1],
        rng.integers(0, rows, 500),
        np.array([rows - 1]),
        np.array([], dtype=np.int64),
        *(np.arange(start, start + 90) for start in (0, 1, 63, 100, 150)),
        np.array([3, 4, 5, 6, 7, 9]),
    ]


def test_columns_come_as_they_are_stored_in_any_order_and_container(made: MadeStore) -> None:
    store = open_store(made.objects.uri)
    expected = {name: halves(made.readable_logits(name)) for name in ("alpha", "beta")}
    for rows_B in orders(len(store.rows)):
        found = store.encoded(["beta", "alpha"], rows_B)
        assert found["logits"].dtype == np.float16
        for m, name in enumerate(["beta", "alpha"]):
            assert np.array_equal(found["logits"][m], expected[name][rows_B])
            assert np.array_equal(found["row_max"][m], made.readable_logits(name).max(axis=1)[rows_B])


def test_logits_for_soft_targets_come_in_any_order_and_container(made: MadeStore) -> None:
    store = open_store(made.objects.uri)
    expected_NC = halves(made.readable_logits("alpha")).astype(np.float64)
    for rows_B in orders(len(store.rows)):
        assert np.array_equal(store.logits_at("alpha", rows_B, 2.0), expected_NC[rows_B])
    if made.teachers["alpha"].codec.container == "parquet":
        with pytest.raises(StoreError, match="codec in_parquet does not keep them"):
            store.logits("alpha", np.array([0]))
    with pytest.raises(StoreError, match="temperature 21"):
        store.logits_at("alpha", np.array([0]), 21.0)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("shuffle", [None, (3, 1)])
def test_batches_hold_every_row_once(made: MadeStore, cache_bytes: int, shuffle: tuple[int, int]) -> None:
    store = open_store(made.objects.uri, cache_bytes=cache_bytes)
    expected_NC = halves(made.readable_logits("beta"))
    batches = list(store.batches("beta", batch_rows=50, shuffle=shuffle))
    assert [len(batch.rows_B) for batch in batches] == [50] * 5 + [287 - 250]
    order_N = np.concatenate([batch.rows_B for batch in batches])
    assert np.array_equal(np.sort(order_N), np.arange(287))
    assert np.array_equal(order_N, np.arange(287)) == (shuffle is None)
    for batch in batches:
        assert np.array_equal(batch.columns["logits"][0], expected_NC[batch.rows_B])


def test_seed_and_epoch_decide_a_shuffled_order_and_pools_end_before_the_next_begins(
    plain: MadeStore,
) -> None:
    store = open_store(plain.objects.uri)

    def order(*shuffle: int, pool_bytes: int = 2 * 64 * (2 * CLASSES + 4)) -> NDArray[np.int64]:
        found = store.batches("alpha", batch_rows=20, shuffle=shuffle, pool_bytes=pool_bytes)  # type: ignore[arg-type]
        return np.concatenate([batch.rows_B for batch in found])

    assert np.array_equal(order(1, 2), order(1, 2))
    assert not np.array_equal(order(1, 2), order(1, 3))
    assert not np.array_equal(order(1, 2), order(2, 2))
    rows = order(1, 2)
    units = (store.rows.segments[rows] * 100 + store.rows.positions[rows] // 64).tolist()
    first = list(dict.fromkeys(units))[:2]
    pool = [unit for unit in units if unit in first]
    assert units[: len(pool)] == pool
    assert pool != sorted(pool, key=first.index)


def test_an_array_given_is_filled_again_and_one_that_does_not_fit_is_not(plain: MadeStore) -> None:
    store = open_store(plain.objects.uri)
    first = store.encoded("alpha", np.arange(10))
    again = store.encoded("alpha", np.arange(10, 20), out=first)
    assert again["logits"] is first["logits"]
    for other in (np.arange(9), np.arange(11)):
        assert store.encoded("alpha", other, out=first)["logits"].shape == (1, len(other), CLASSES)
    strided = {name: np.asfortranarray(values) for name, values in first.items()}
    fresh = store.encoded("alpha", np.arange(10), out=strided)
    assert np.array_equal(fresh["logits"][0], halves(plain.readable_logits("alpha"))[:10])


def test_teachers_in_other_columns_do_not_go_into_one_array(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(8)
    made.add_teacher("alpha")
    made.add_teacher("beta", codec=CodecSpec(name="dense8"))
    made.commit_all()
    seal(made.objects)
    store = open_store(made.objects.uri)
    with pytest.raises(StoreError, match="'alpha' and 'beta'.*read them one by one"):
        store.encoded(["alpha", "beta"], np.arange(3))
    with pytest.raises(StoreError, match="no teacher named"):
        store.encoded([], np.arange(3))


# --- verification


def shard(made: MadeStore, index: int, column: str = "logits", teacher: str = "alpha") -> Path:
    group = keys.logits_group(teacher, "s0000", 0)
    return Path(made.objects.path(f"{group}/{column}/c/{index}" + ("/0" if column == "logits" else "")))


def test_every_flipped_byte_of_a_mapped_shard_is_found_by_whoever_touches_it(tmp_path: Path) -> None:
    """Of a chunk by those who take rows of it; of what stands behind the chunks by all."""
    made = made_store(str(tmp_path / "store"), "plain")
    path = shard(made, 1)
    data = path.read_bytes()
    expected_NC = halves(made.readable_logits("alpha"))
    chunk = 4 * 2 * CLASSES + 4
    for place in [*range(0, len(data), 29), *range(len(data) - 4 - 16 * 16 - 4, len(data), 5)]:
        path.write_bytes(flip(data, place, place % 8))
        for rows_B in (np.arange(62, 125), np.array([62]), np.array([80, 120, 62])):
            store = open_store(made.objects.uri)
            # Row 62 is position 64, the first of the unit: two rows before it are quarantined.
            positions_B = store.rows.positions[rows_B] - 64
            touched = place >= 16 * chunk or place % chunk >= chunk - 4 or place // chunk in positions_B // 4
            if touched:
                with pytest.raises(CorruptObject, match=r"logits/c/1"):
                    store.encoded("alpha", rows_B)
            else:
                assert np.array_equal(store.encoded("alpha", rows_B)["logits"][0], expected_NC[rows_B])
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["plain", "blosc", "parquet"])
def test_an_object_cut_short_made_longer_or_of_another_kind_raises(tmp_path: Path, kind: str) -> None:
    made = made_store(str(tmp_path / "store"), kind)
    path = (
        Path(made.objects.path(keys.logits_part("alpha", "s0000", 0, 1)))
        if kind == "parquet"
        else shard(made, 1)
    )
    data = path.read_bytes()

    def refused() -> None:
        for rows_B in (np.array([70]), np.arange(60, 130)):
            with pytest.raises(CorruptObject, match=path.name if kind == "parquet" else "logits/c/1"):
                open_store(made.objects.uri).encoded("alpha", rows_B)

    for changed in (b"", data[:1], data[:-1], data + b"x"):
        path.write_bytes(changed)
        refused()
    path.unlink()
    refused()
    path.mkdir()
    refused()
    path.rmdir()
    os.mkfifo(path)
    refused()


def test_a_chunk_is_verified_once_or_whenever_reading_comes_to_it(
    plain: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[int] = []
    real = mapped.crc32c

    def counted(data: NDArray[np.uint8]) -> int:
        verified.append(len(data))
        return real(data)

    monkeypatch.setattr(mapped, "crc32c", counted)
    rows_B = np.arange(62, 125)  # a unit of 64 rows, one of them quarantined: 16 chunks of logits
    once, always = open_store(plain.objects.uri), open_store(plain.objects.uri, verify="always")
    for store, passes in ((once, 1), (always, 3)):
        verified.clear()
        for _ in range(3):
            for start in range(0, 63, 2):
                store.encoded("alpha", rows_B[start : start + 2])
        assert verified.count(4 * 2 * CLASSES) == 16 * passes
    verified.clear()
    for _ in range(2):
        always.encoded("alpha", rows_B[[0, 60, 1, 61]])
    assert verified.count(4 * 2 * CLASSES) == 4


def test_more_shards_than_may_be_mapped_at_once_are_read_all_the_same(
    plain: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_MOST_MAPPED", 2)
    store = open_store(plain.objects.uri)
    expected_NC = halves(plain.readable_logits("alpha"))
    rng = np.random.default_rng(0)
    for rows in (1, 3, 40, 1, 200, 2):
        rows_B = rng.integers(0, len(store.rows), rows)
        assert np.array_equal(store.encoded("alpha", rows_B)["logits"][0], expected_NC[rows_B])


def test_where_nothing_can_be_mapped_side_by_side_rows_are_read_unit_by_unit(
    plain: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise arena.CannotMap("not here")

    expected_NC = halves(plain.readable_logits("alpha"))
    for name in ("__init__", "map"):
        with monkeypatch.context() as patch:
            patch.setattr(arena.Arena, name, refuse)
            for rows_B in orders(287):
                store = open_store(plain.objects.uri)
                assert np.array_equal(store.encoded("alpha", rows_B)["logits"][0], expected_NC[rows_B])
                assert np.array_equal(store.logits_at("alpha", rows_B, 1.0), expected_NC[rows_B])


def test_rows_of_a_unit_that_is_not_committed_raise_however_they_are_asked_for(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(24)
    made.add_teacher("alpha")
    made.commit("alpha", 0)
    made.commit("alpha", 2)
    seal(made.objects)
    for rows_B in (np.array([8]), np.arange(4, 20), np.array([0, 9, 23])):
        with pytest.raises(IncompleteStore, match="unit 1 of teacher 'alpha'"):
            open_store(made.objects.uri).encoded("alpha", rows_B)
    assert open_store(made.objects.uri).encoded("alpha", np.array([0, 23]))["logits"].shape == (1, 2, 3)


# --- threads and processes


def wrong_rows(store: Store, expected_NC: NDArray[np.float16], seed: int) -> int:
    """Reads at random and in runs; how many rows came out wrong."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(5):
        for rows_B in (rng.integers(0, 287, 50), np.arange(start := rng.integers(0, 200), start + 60)):
            found_BC = store.encoded("alpha", rows_B)["logits"][0]
            wrong += int((found_BC != expected_NC[rows_B]).any(axis=1).sum())
    return wrong


def test_threads_share_a_store_whose_caches_are_too_small_for_all(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_MOST_MAPPED", 3)
    store = open_store(made.objects.uri, cache_bytes=3000)
    expected_NC = halves(made.readable_logits("alpha"))
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda seed: wrong_rows(store, expected_NC, seed), range(16))) == 0


def in_process(context: Any, work: Callable[..., None], *arguments: Any) -> Any:
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(send, *arguments))
    process.start()
    send.close()
    found = receive.recv() if receive.poll(60) else None
    process.join(60)
    assert process.exitcode == 0
    return found


def read_there(send: Any, store: Store, expected_NC: NDArray[np.float16]) -> None:
    send.send(wrong_rows(store, expected_NC, os.getpid()))


def test_a_forked_process_reads_on_though_a_thread_held_every_lock(made: MadeStore) -> None:
    store = open_store(made.objects.uri)
    expected_NC = halves(made.readable_logits("alpha"))
    wrong_rows(store, expected_NC, 0)
    gatherer = store._gatherer
    held = [gatherer._kept._lock, *(column._lock for column in gatherer._mapped.values())]
    release, holding = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in held:
            lock.acquire()
        holding.set()
        release.wait()
        for lock in held:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        assert in_process(multiprocessing.get_context("fork"), read_there, store, expected_NC) == 0
    finally:
        release.set()
        thread.join()
    assert wrong_rows(store, expected_NC, 1) == 0


def test_a_store_sent_elsewhere_reads_the_generation_that_it_was_opened_with(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(16)
    made.add_teacher("alpha")
    made.commit("alpha", 0)
    seal(made.objects)
    store = open_store(made.objects.uri)
    made.commit("alpha", 1)
    seal(made.objects)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert (store.generation, again.generation) == (1, 1)
    assert again.missing_units("alpha") == [("s0000", 1)]
    assert open_store(made.objects.uri).generation == 2


class Halves(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store.rows)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self.store.logits_at("alpha", np.array([row]), 1.0)[0])


def data_loader_reads(uri: str, start_method: str) -> NDArray[np.float32]:
    loader = torch.utils.data.DataLoader(
        Halves(open_store(uri)), batch_size=64, num_workers=2, multiprocessing_context=start_method
    )
    return torch.cat(list(loader)).numpy()


def test_the_workers_of_a_data_loader_read_a_store(plain: MadeStore) -> None:
    expected_NC = halves(plain.readable_logits("alpha"))
    assert np.array_equal(data_loader_reads(plain.objects.uri, "fork"), expected_NC)


def test_buffers_of_a_store_in_memory_lie_in_no_file(made: MadeStore) -> None:
    assert ObjectBuffers(made.objects, None).in_files == (made.objects.local is not None)


def test_a_spawned_process_reads_a_store_that_is_sent_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 1 << 20)  # as it is there
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(20)
    made.add_teacher("alpha")
    made.commit_all()
    seal(made.objects)
    store = open_store(made.objects.uri)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found_NC = pool.apply(store.logits_at, ("alpha", np.arange(20), 1.0))
    assert np.array_equal(found_NC, halves(made.readable_logits("alpha")))


@pytest.mark.parametrize("kind", ["blosc", "parquet"])
def test_memory_stays_bounded_over_a_store_ten_times_larger(tmp_path: Path, kind: str) -> None:
    """What the reader keeps of a store, and the one unit that it works on."""
    made = made_store(str(tmp_path / "store"), kind)
    unit_bytes = 64 * (2 * CLASSES + 4) + (64 * (8 + 64 + 5) if kind == "parquet" else 0)
    store = open_store(made.objects.uri, cache_bytes=unit_bytes // 2)
    held = []
    for batch in store.batches(["alpha", "beta"], batch_rows=10, shuffle=(0, 0), pool_bytes=0):
        assert len(batch.rows_B) <= 10
        held.append(store._gatherer._kept.held_bytes)
    assert 0 < max(held) <= unit_bytes
    assert 2 * 6 * unit_bytes > 10 * max(held)
