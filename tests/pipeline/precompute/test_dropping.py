"""Runs on a store of which something was dropped, before and after its objects are gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import toy_models
from tests.worlds import identities_of, run_config, teacher, write_rows

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.garbage import collect, plan_gc
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas.errors import StoreError

A, B = teacher("a"), teacher("b", kwargs={"seed": 1})


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Segments of 40, 30 and 160 rows, labelled by `a`."""
    write_rows(tmp_path)
    inputs, labels = np.load(tmp_path / "inputs.npy"), np.load(tmp_path / "labels.npy")
    for rows in (40, 70, 230):
        np.save(tmp_path / "inputs.npy", inputs[:rows])
        np.save(tmp_path / "labels.npy", labels[:rows])
        precompute(run_config(tmp_path, A))
    return tmp_path


def dropped(folder: Path, *, collected: bool, **what: list[str]) -> None:
    objects = StoreObjects.at(str(folder / "cask"))
    drop(objects, plan_drop(objects, **what))
    if collected:
        collect(objects, plan_gc(objects, older_than=timedelta()))


def bare_logits(folder: Path, seed: int) -> np.ndarray:
    with torch.inference_mode():
        return toy_models.net(seed)(torch.from_numpy(np.load(folder / "inputs.npy")) * 0.5).numpy()


@pytest.mark.parametrize("collected", [False, True])
def test_a_dropped_segment_is_not_labelled_by_later_teachers(grown: Path, collected: bool) -> None:
    dropped(grown, collected=collected, segments=["s0001"])
    config = run_config(grown, A, B)
    planned = plan(config)
    assert {name: (each.units, each.rows) for name, each in planned.teachers.items()} == {
        "a": (2 + 5, 0),
        "b": (2 + 5, 200),
    }
    summary = precompute(config)
    assert (summary.rows, summary.teachers["b"].new_rows, summary.teachers["a"].new_rows) == (200, 200, 0)
    store = open_store(str(grown / "cask"))
    kept = np.r_[0:40, 70:230]
    assert store.rows.sample_ids.tolist() == [f"inputs-{row:08d}" for row in kept]
    for name, seed in (("a", 0), ("b", 1)):
        found = store.logits(name, np.arange(200))
        np.testing.assert_allclose(found, bare_logits(grown, seed)[kept], atol=0.1)
    assert verify(str(grown / "cask")).problems == ()


@pytest.mark.parametrize("collected", [False, True])
def test_a_store_grows_behind_a_segment_that_was_dropped(grown: Path, collected: bool) -> None:
    dropped(grown, collected=collected, segments=["s0001"])
    inputs, labels = np.load(grown / "inputs.npy"), np.load(grown / "labels.npy")
    np.save(grown / "inputs.npy", np.concatenate([inputs, inputs[:20] + 1]))
    np.save(grown / "labels.npy", np.concatenate([labels, labels[:20]]))
    assert plan(run_config(grown, A)).teachers["a"].rows == 20
    assert precompute(run_config(grown, A)).teachers["a"].new_rows == 20
    store = open_store(str(grown / "cask"))
    assert [(each.segment, each.first, each.rows) for each in store.segments] == [
        ("s0000", 0, 40),
        ("s0002", 70, 160),
        ("s0003", 230, 20),
    ]
    assert verify(str(grown / "cask")).problems == ()


def test_a_dropped_teacher_is_refused_until_its_objects_are_gone(grown: Path) -> None:
    dropped(grown, collected=False, teachers=["a"])
    config: RunConfig = run_config(grown, A)
    before = identities_of(grown / "cask")
    for refused in (plan, precompute):
        with pytest.raises(StoreError, match="teacher 'a' was dropped"):
            refused(config)
    assert identities_of(grown / "cask") == before
    objects = StoreObjects.at(str(grown / "cask"))
    collect(objects, plan_gc(objects, older_than=timedelta()))
    changed = run_config(grown, teacher("a", kwargs={"seed": 5}))
    assert precompute(changed).teachers["a"].new_rows == 230
    store = open_store(str(grown / "cask"))
    np.testing.assert_allclose(store.logits("a", np.arange(230)), bare_logits(grown, 5), atol=0.1)
    assert verify(str(grown / "cask")).problems == ()


def test_a_teacher_that_is_dropped_while_it_labels_is_told(grown: Path) -> None:
    objects = StoreObjects.at(str(grown / "cask"))

    def meanwhile(progress: object) -> None:
        drop(objects, plan_drop(objects, teachers=["b"]))

    with pytest.raises(StoreError, match="teacher 'b' was dropped"):
        precompute(run_config(grown, B), watch=meanwhile)
    assert list(open_store(str(grown / "cask")).teachers) == ["a"]
    assert verify(str(grown / "cask")).problems == ()
