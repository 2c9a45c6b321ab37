"""Stores with views under care: drop, gc, diff, derive, export; and what a person is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.pipeline.precompute.test_views import config, section
from tests.worlds import ROWS, teacher, write_rows

from softcask.jobs.inspect import overview
from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.derive import combine
from softcask.pipeline.exchange.export import export
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.differences import diff_stores
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.garbage import collect, plan_gc
from softcask.pipeline.store.care.migration import migrate, plan_migration
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.targets.in_view import in_view
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreError

LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def objects(tmp_path: Path) -> StoreObjects:
    """Two teachers over 230 rows as they are and in two views."""
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    return StoreObjects.at(str(tmp_path / "cask"))


def test_garbage_is_collected_around_views_and_a_teacher_with_views_can_go(objects: StoreObjects) -> None:
    assert plan_gc(objects, older_than=timedelta(0), now=LATER).take == ()
    objects.publish("teachers/a/logits/s0000/v0009/part-00000000.parquet", b"left by a killed run")
    drop(objects, plan_drop(objects, teachers=["b"]))
    plan = plan_gc(objects, older_than=timedelta(0), now=LATER)
    assert not any(each.key.startswith("views/") for each in plan.take)
    assert "teachers/a/logits/s0000/v0009/part-00000000.parquet" in {each.key for each in plan.take}
    collect(objects, plan)
    assert verify(objects.uri).problems == ()
    store = open_store(objects.uri)
    assert list(store.teachers) == ["a"] and list(store.views) == [1, 2]
    assert len(store.logits("a", np.arange(ROWS), view=2)) == ROWS


def test_when_the_last_teacher_of_a_view_goes_so_does_the_view(objects: StoreObjects, tmp_path: Path) -> None:
    precompute(config(tmp_path, teacher("c", kwargs={"seed": 2})))
    drop(objects, plan_drop(objects, teachers=["a", "b"]))
    store = open_store(objects.uri)
    assert (list(store.teachers), list(store.views)) == (["c"], [])
    assert len(store.logits("c", np.arange(ROWS))) == ROWS
    precompute(config(tmp_path, teacher("c", kwargs={"seed": 2}), views=section(1)))
    assert list(open_store(objects.uri).views) == [1]
    assert verify(objects.uri).problems == ()


def test_stores_of_other_views_differ_in_the_fields_that_say_so(
    objects: StoreObjects, tmp_path: Path
) -> None:
    precompute(config(tmp_path, views=section(2, seed=8), cask="other"))
    found = diff_stores(open_store(objects.uri), open_store(str(tmp_path / "other")), sample=16)
    told = {difference.name: (difference.a, difference.b) for difference in found.views}
    assert not found.equal and told["1.seed"] == (3, 8) and any(".probe." in name for name in told)
    precompute(config(tmp_path, views=section(2), cask="same"))
    assert diff_stores(open_store(objects.uri), open_store(str(tmp_path / "same")), sample=16).equal


def test_a_derived_entry_has_the_views_of_what_it_is_made_from(objects: StoreObjects) -> None:
    combine(
        objects.uri, teachers=["a", "b"], rule="geometric", into="both", request=CodecRequest(name="dense16")
    )
    store = open_store(objects.uri)
    for view in (0, 2):
        expected = (
            store.logits("a", np.arange(30), view=view) + store.logits("b", np.arange(30), view=view)
        ) / 2
        found = store.logits("both", np.arange(30), view=view)
        np.testing.assert_allclose(found, expected, atol=2e-2)
    assert store.complete_views(["both"]) == (0, 1, 2)
    assert verify(objects.uri).problems == ()
    again = combine(
        objects.uri, teachers=["a", "b"], rule="geometric", into="both", request=CodecRequest(name="dense16")
    )
    assert again.new_units == 0


def test_a_view_is_exported_and_says_so(objects: StoreObjects, tmp_path: Path) -> None:
    store = open_store(objects.uri)
    targets = in_view(SoftTargets(store, ["a"]), store, 1)
    export(targets, str(tmp_path / "out.parquet"))
    found = np.stack(pd.read_parquet(tmp_path / "out.parquet")["probabilities"])
    logits = store.logits("a", np.arange(ROWS), view=1).astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, raised / raised.sum(axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(StoreError, match=r"no view 5 of its rows; beside the rows themselves \(0\): 1, 2"):
        in_view(SoftTargets(store, ["a"]), store, 5)


def test_what_is_missing_of_views_is_shown(objects: StoreObjects, tmp_path: Path) -> None:
    shown = overview(open_store(objects.uri))
    assert shown["state"] == "complete"
    assert (shown["teachers"]["a"]["units"], shown["teachers"]["a"]["planned_units"]) == (24, 24)
    assert shown["views"]["2"]["units"] == {"a": 8, "b": 8}
    assert [step["kind"] for step in shown["views"]["1"]["steps"]] == ["pixel_shift", "flip", "cutmix"]
    precompute(config(tmp_path, teacher("c", kwargs={"seed": 2})))
    shown = overview(open_store(objects.uri))
    assert shown["state"] == "partial"
    assert (shown["teachers"]["c"]["units"], shown["teachers"]["c"]["planned_units"]) == (8, 24)


def test_migration_keeps_views(objects: StoreObjects, tmp_path: Path) -> None:
    precompute(config(tmp_path, views=section(3)))
    migrate(objects, plan_migration(objects))
    store = open_store(objects.uri)
    assert list(store.views) == [1, 2, 3] and store.complete_views(["a", "b"]) == (0, 1, 2, 3)


def test_damage_to_a_views_document_is_found(objects: StoreObjects) -> None:
    key = keys.view_manifest(2)
    objects.replace(key, objects.read(key).replace(b'"seed": 3', b'"seed": 4'))
    assert [problem.key for problem in verify(objects.uri).problems] == [key]
    with pytest.raises(StoreError, match=r"v0002\.json"):
        open_store(objects.uri)
