"""Runs over a store of which another tool wrote arrays: they are left alone, and never written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.store.foreign import by_zarr, record_anew, rewrite_array
from tests.stores import MadeStore, flip
from tests.worlds import CLASSES, objects_of, run_config, teacher, write_rows

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.repair import repair
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import SegmentManifest

ROWS, UNIT = 100, 32


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A finished store whose logits are in chunks of 16 rows, half a unit."""
    write_rows(tmp_path, rows=ROWS)
    config = run_config(tmp_path, teacher("a"))
    precompute(config)
    rewrite_array(made(tmp_path), "a", "logits", by_zarr(chunks=(16, CLASSES)))
    return config


def made(folder: Path) -> MadeStore:
    objects = StoreObjects.at(str(folder / "cask"))
    key = keys.segment_manifest("s0000")
    manifest = SegmentManifest.from_bytes(objects.read(key), key)
    return MadeStore(objects, segments={"s0000": (manifest, read_rows(objects, manifest))})


def test_a_store_with_foreign_arrays_grows_and_keeps_them(config: RunConfig, tmp_path: Path) -> None:
    logits_NC = open_store(str(tmp_path / "cask")).logits("a", np.arange(ROWS))
    assert precompute(config).tasks == 0
    before = objects_of(tmp_path / "cask")
    write_rows(tmp_path, rows=ROWS + 40)
    inputs = np.load(tmp_path / "inputs.npy")
    write_rows(tmp_path, rows=ROWS)
    inputs[:ROWS] = np.load(tmp_path / "inputs.npy")
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "labels.npy", np.resize(np.load(tmp_path / "labels.npy"), ROWS + 40))
    assert precompute(config).teachers["a"].new_rows == 40
    after = objects_of(tmp_path / "cask")
    assert {key: after[key] for key in before if "/s0000/" in key} == {
        key: data for key, data in before.items() if "/s0000/" in key
    }
    store = open_store(str(tmp_path / "cask"))
    assert np.array_equal(store.logits("a", np.arange(ROWS)), logits_NC)
    assert store.logits("a", np.arange(ROWS, ROWS + 40)).shape == (40, CLASSES)
    assert verify(str(tmp_path / "cask")).problems == ()


def test_a_unit_that_is_missing_among_foreign_ones_is_not_labelled(config: RunConfig, tmp_path: Path) -> None:
    key = keys.commit("a", keys.unit_name("s0000", 0, 1))
    (tmp_path / "cask" / key).unlink()
    world = made(tmp_path)
    objects = world.objects
    for name in objects.names("catalog"):
        (tmp_path / "cask" / "catalog" / name).rename(tmp_path / name)
    seal(objects)
    before = objects_of(tmp_path / "cask")
    with pytest.raises(StoreError, match="written by another tool"):
        precompute(config)
    after = objects_of(tmp_path / "cask")
    assert {key: after[key] for key in before} == before


def test_damage_in_foreign_arrays_is_left_to_who_wrote_them(config: RunConfig, tmp_path: Path) -> None:
    """Object 1 of 16 rows is half of unit 0: it is not taken for unit 1."""
    path = tmp_path / "cask" / keys.logits_group("a", "s0000", 0) / "logits" / "c" / "1" / "0"
    path.write_bytes(flip(path.read_bytes(), 9))
    before = objects_of(tmp_path / "cask")
    report = repair(config)
    assert [(each.problem.key.split("/")[-4:], each.action) for each in report.left] == [
        (["logits", "c", "1", "0"], "none")
    ]
    assert "another tool" in report.left[0].advice
    assert objects_of(tmp_path / "cask") == before


def test_a_foreign_array_that_is_written_again_is_recorded_again(config: RunConfig, tmp_path: Path) -> None:
    world = made(tmp_path)
    rewrite_array(world, "a", "logits", by_zarr(chunks=(8, CLASSES), compressors=None))
    record_anew(world, "a", "logits")
    assert verify(str(tmp_path / "cask")).problems == ()
    assert precompute(config).tasks == 0
