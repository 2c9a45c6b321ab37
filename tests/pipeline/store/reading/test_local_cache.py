"""Copies of remote objects on this machine's disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from numpy.typing import NDArray
from tests.stores import MadeStore, flip, sealed_store

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading import reader
from softcask.pipeline.store.reading.buffers import ObjectBuffers
from softcask.pipeline.store.reading.local_cache import LocalCache
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas.errors import CorruptObject, StoreAccess
from softcask.storage_schemas.manifest import CodecSpec, ObjectRecord


@pytest.fixture
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MadeStore:
    """A store in memory that is taken for one on a server."""
    made = sealed_store(f"memory://cached-{request.node.name}", quarantined=())
    monkeypatch.setattr(reader, "_in_memory", lambda _: False)
    return made


def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of shards that are fetched from here on."""
    found: list[str] = []
    real: Callable[..., bytes] = StoreObjects.read_recorded

    def counted(self: StoreObjects, record: ObjectRecord) -> bytes:
        if "/c/" in record.key:
            found.append(record.key)
        return real(self, record)

    monkeypatch.setattr(StoreObjects, "read_recorded", counted)
    return found


def expected(made: MadeStore) -> NDArray[np.float16]:
    logits_NC = made.readable_logits("alpha").astype(np.float64)
    return (logits_NC - logits_NC.max(axis=1, keepdims=True)).astype(np.float16)


def opened(made: MadeStore, folder: Path, **options: Any) -> Store:
    return open_store(made.objects.uri, cache_dir=str(folder), **options)


def read(store: Store) -> NDArray[Any]:
    return store.encoded("alpha", np.arange(20))["logits"][0]


def test_an_object_is_fetched_once_for_all_who_share_a_folder(
    remote: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copies"
    found = fetches(monkeypatch)
    for _ in range(3):
        assert np.array_equal(read(opened(remote, folder)), expected(remote))
    assert len(found) == len(set(found)) == 6  # three units, two columns
    assert len(list(folder.iterdir())) == 6
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_damaged_copy_is_fetched_again_and_never_read(
    remote: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(opened(remote, tmp_path))
    found = fetches(monkeypatch)
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for changed in (flip(data, 3), flip(data, len(data) - 1), data[:-1], b""):
            path.write_bytes(changed)
            found.clear()
            assert np.array_equal(read(opened(remote, tmp_path)), expected(remote))
            assert len(found) == 1
            assert path.read_bytes() == data


def test_what_was_used_longest_ago_makes_room_and_nothing_else_is_touched(
    remote: MadeStore, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cache = LocalCache.at(tmp_path, 250)
    records = [ObjectRecord.of(f"key-{number}", bytes(100)) for number in range(3)]
    paths = [cache.path("memory://store", record) for record in records]
    for age, path in enumerate(paths[:2]):
        cache.put(path, bytes(100))
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.touch(paths[0], 100)  # used just now
    cache.put(paths[2], bytes(100))
    assert [path.exists() for path in paths] == [True, False, True]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert cache.path("memory://other", records[0]) != paths[0]


def test_a_store_larger_than_its_folder_may_be_is_read_all_the_same(
    remote: MadeStore, tmp_path: Path
) -> None:
    sizes = sum(record.size for record in _records(remote)) // 2
    for bound in (0, 1, 100, sizes):
        folder = tmp_path / str(bound)
        assert np.array_equal(read(opened(remote, folder, cache_dir_bytes=bound)), expected(remote))
        held = sum(path.stat().st_size for path in folder.iterdir()) if folder.exists() else 0
        assert held <= bound


def _records(made: MadeStore) -> list[ObjectRecord]:
    store = open_store(made.objects.uri)
    return [record for index in range(3) for _, (record,) in store._units.objects(("alpha", 0, 0, index))]


def test_a_copy_that_goes_while_it_is_read_is_read_to_the_end(remote: MadeStore, tmp_path: Path) -> None:
    store = opened(remote, tmp_path)
    read(store)
    for path in tmp_path.iterdir():
        path.unlink()
    assert np.array_equal(read(store), expected(remote))


def test_a_folder_that_others_may_write_to_is_refused(remote: MadeStore, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StoreAccess, match="others may write to it"):
        opened(remote, tmp_path)


def test_an_object_that_is_damaged_where_it_comes_from_raises_and_leaves_no_copy(
    remote: MadeStore, tmp_path: Path
) -> None:
    record = _records(remote)[0]
    path = remote.objects.path(record.key)
    MemoryFileSystem().pipe_file(path, flip(remote.objects.read(record.key), 5))
    with pytest.raises(CorruptObject, match=record.key):
        read(opened(remote, tmp_path))
    assert not LocalCache.at(tmp_path, 1 << 20).path(remote.objects.uri, record).exists()


def test_compressed_copies_are_mended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeStore.at("memory://cached-blosc")
    made.add_segment(20)
    made.add_teacher("alpha", codec=CodecSpec(name="dense16", compression="blosc"))
    made.commit_all()
    seal(made.objects)
    monkeypatch.setattr(reader, "_in_memory", lambda _: False)
    read(opened(made, tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(flip(path.read_bytes(), 20))
    assert np.array_equal(read(opened(made, tmp_path)), expected(made))


def test_the_default_folder_is_below_the_users_folder_of_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert LocalCache.at(None, 1).folder == tmp_path / "softcask"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalCache.at(None, 1).folder == tmp_path / ".cache" / "softcask"


def test_a_store_on_disk_keeps_no_copies(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "store"))
    buffers = ObjectBuffers(made.objects, LocalCache.at(tmp_path / "copies", 1 << 20))
    assert buffers.in_files
    assert not buffers.discard(ObjectRecord.of("key", b""))
    open_store(made.objects.uri, cache_dir=str(tmp_path / "copies")).logits("alpha", np.arange(3))
    assert not any((tmp_path / "copies").iterdir())
