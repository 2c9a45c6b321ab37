"""Views of rows, labelled and replayed: the teacher and the student see equal tensors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests import toy_models
from tests.worlds import ROWS, identities_of, objects_of, run_config, teacher, write_rows

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.precompute.repair import repair
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.pipeline.targets.in_view import chosen_views, in_view
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.views.replay import Replay
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import (
    ConfigError,
    CorruptObject,
    ManifestMismatch,
    MisalignedRows,
    StoreError,
)
from softcask.storage_schemas.views import ViewManifest

STEPS = [{"kind": "pixel_shift", "pixels": 1}, {"kind": "flip"}, {"kind": "cutmix"}]
JITTER = {"kind": "callable", "function": "toy_views:jitter"}


def section(count: int = 2, *steps: Mapping[str, Any], seed: int = 3) -> dict[str, Any]:
    return {"count": count, "seed": seed, "steps": list(steps or STEPS)}


def config(folder: Path, *teachers: dict[str, Any], views: Any = None, cask: str = "cask") -> RunConfig:
    store = {"uri": str(folder / cask), "unit_rows": 32}
    return run_config(folder, *teachers, store=store, views=views)


def replay(store: Store, folder: Path, views: list[int], **options: Any) -> Replay:
    """Over the very rows on disk, which are the store's in order unless some are quarantined."""
    inputs = np.load(folder / "inputs.npy")
    rows_N = np.arange(len(store.rows))
    return Replay(
        store, views, inputs=lambda rows_B: inputs[store.rows.positions[rows_B]], rows_N=rows_N, **options
    )


def recorded(folder: Path) -> list[bytes]:
    """Rows that a recording teacher saw, each as its bytes."""
    return [row.tobytes() for file in sorted(folder.glob("*.npy")) for row in np.load(file)]


def recording(folder: Path, **options: Any) -> dict[str, Any]:
    where = {"folder": str(folder / "seen")}
    plain = {"preprocessing": {}, "factory": "toy_models:recording", "kwargs": where}
    (folder / "seen").mkdir(exist_ok=True)
    return teacher("a", **plain, **options)


def net_logits(inputs_B: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = toy_models.net()(torch.from_numpy(inputs_B)).numpy()
    return logits


def test_the_student_sees_what_its_teacher_saw_row_by_row(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=(3, 77))
    precompute(config(tmp_path, recording(tmp_path), views=section(3)))
    store = open_store(str(tmp_path / "cask"))
    again, rows_B = replay(store, tmp_path, [1, 2, 3]), np.random.default_rng(0).permutation(ROWS - 2)
    shown = {view: again.read(rows_B, view) for view in range(4)}
    # The same rows, bit for bit, and no others.
    seen = {row.tobytes() for viewed in shown.values() for row in viewed.inputs_B}
    assert seen == set(recorded(tmp_path / "seen"))
    assert len(seen) > 3.9 * (ROWS - 2)
    # And each under its own name: the teacher's net over what the student sees gives what is stored of it.
    for view, viewed in shown.items():
        expected = net_logits(viewed.inputs_B).astype(np.float64)
        found = store.logits("a", rows_B, view=view)
        distance = expected.max(axis=1, keepdims=True) - expected
        assert (np.abs(found - expected) <= distance * 2**-11 + 2e-6 * (1 + np.abs(expected))).all()
    assert shown[0].share_B is None
    assert shown[1].share_B is not None and 0 < shown[1].share_B.mean() < 1


def test_a_view_is_the_same_row_by_row_in_batches_of_any_size(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1, *STEPS, JITTER)))
    store = open_store(str(tmp_path / "cask"))
    options = config(tmp_path, views=section(1, *STEPS, JITTER)).views
    one = replay(store, tmp_path, [1], augmentation=options)
    whole = one.read(np.arange(ROWS), 1)
    for first in range(0, ROWS, 7):
        some = one.read(np.arange(first, min(first + 7, ROWS)), 1)
        np.testing.assert_array_equal(some.inputs_B, whole.inputs_B[first : first + 7])
        assert some.partner_B is not None and whole.partner_B is not None
        np.testing.assert_array_equal(some.partner_B, whole.partner_B[first : first + 7])


def test_unit_length_and_batch_size_do_not_matter(tmp_path: Path) -> None:
    write_rows(tmp_path)
    (tmp_path / "seen").mkdir()
    precompute(config(tmp_path, recording(tmp_path), views=section(1)))
    before = sorted(set(recorded(tmp_path / "seen")))
    shutil.rmtree(tmp_path / "seen")
    (tmp_path / "seen").mkdir()
    store = {"uri": str(tmp_path / "other"), "unit_rows": 48}
    precompute(run_config(tmp_path, recording(tmp_path, batch_size=5), store=store, views=section(1)))
    assert sorted(set(recorded(tmp_path / "seen"))) == before


def test_more_views_run_only_what_is_missing_and_rewrite_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    before = identities_of(tmp_path / "cask")
    planned = plan(config(tmp_path, views=section(4)))
    assert planned.teachers["a"].rows == 2 * ROWS
    summary = precompute(config(tmp_path, views=section(4)))
    assert {name: done.new_rows for name, done in summary.teachers.items()} == {"a": 2 * ROWS, "b": 2 * ROWS}
    after = identities_of(tmp_path / "cask")
    assert [key for key in before if after[key] != before[key]] == ["catalog/newest.json"]
    # As if all had been labelled at once, the catalog's history apart.
    precompute(config(tmp_path, views=section(4), cask="once"))
    grown, once = objects_of(tmp_path / "cask"), objects_of(tmp_path / "once")
    assert {k: v for k, v in grown.items() if not k.startswith("catalog")} == {
        k: v for k, v in once.items() if not k.startswith("catalog")
    }
    assert precompute(config(tmp_path, views=section(4))).tasks == 0


def test_a_changed_augmentation_is_refused_field_by_field_and_nothing_is_changed(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    before = identities_of(tmp_path / "cask")
    other = section(2, {"kind": "pixel_shift", "pixels": 2}, {"kind": "flip"}, {"kind": "cutmix"}, seed=4)
    for call in (precompute, plan):
        with pytest.raises(ManifestMismatch, match="view 1 of") as caught:
            call(config(tmp_path, views=other))
        told = str(caught.value)
        assert "seed: found 4, expected 3" in told
        assert "steps[0].pixels: found 2, expected 1" in told and "steps[1]" not in told
        assert "Nothing was changed" in told and "remove" not in told
    assert identities_of(tmp_path / "cask") == before


def test_a_view_without_a_unit_can_be_taken_back(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path))
    objects = StoreObjects.at(str(tmp_path / "cask"))
    pinned = ViewManifest(
        view=1, seed=9, steps=({"kind": "flip"},), row_shape=(6, 4), row_dtype="float32", segment="s0000",
        probe=(), recorded={},
    )  # fmt: skip
    objects.publish(keys.view_manifest(1), pinned.to_bytes())
    with pytest.raises(ManifestMismatch, match=r"remove views/v0001\.json from the store"):
        precompute(config(tmp_path, views=section(1)))
    seal(objects)
    assert open_store(objects.uri).views == {}
    objects.remove(keys.view_manifest(1))
    precompute(config(tmp_path, views=section(1)))
    assert open_store(objects.uri).views[1].seed == 3


def test_quarantined_rows_stay_so_in_every_view_and_are_nobodys_partner(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=(5, 40))
    precompute(config(tmp_path, views=section(2)))
    store = open_store(str(tmp_path / "cask"))
    assert len(store.stats("a", view=2)) == ROWS - 2
    plain = store.zarr_group("a", view=2)["logits"][:]
    assert np.flatnonzero(np.isnan(np.asarray(plain)).any(axis=1)).tolist() == [5, 40]
    partner_B = replay(store, tmp_path, [1, 2]).read(np.arange(ROWS - 2), 2).partner_B
    assert partner_B is not None and (partner_B >= 0).all() and (partner_B != np.arange(ROWS - 2)).all()
    assert verify(store.uri).problems == ()


def test_rows_that_came_later_have_views_and_partners_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path, rows=100)
    precompute(config(tmp_path, recording(tmp_path), views=section(1)))
    precompute(_grown(tmp_path))
    store = open_store(str(tmp_path / "cask"))
    assert [segment.segment for segment in store.segments] == ["s0000", "s0001"]
    grown = np.load(tmp_path / "inputs.npy")
    shown = Replay(store, [1], inputs=lambda rows_B: grown[rows_B], rows_N=np.arange(150)).read(
        np.random.default_rng(0).permutation(150), 1
    )
    assert {row.tobytes() for row in shown.inputs_B} <= set(recorded(tmp_path / "seen"))
    assert shown.partner_B is not None
    rows_B = np.random.default_rng(0).permutation(150)
    assert ((rows_B < 100) == (shown.partner_B < 100)).all()


def _grown(folder: Path) -> RunConfig:
    """The first 100 rows as they were, 50 behind them."""
    first = write_rows(folder / "first", rows=100)
    behind = write_rows(folder / "behind", rows=50, seed=1)
    for name in ("inputs", "labels"):
        both = [np.load(part / f"{name}.npy") for part in (first, behind)]
        np.save(folder / f"{name}.npy", np.concatenate(both))
    return config(folder, recording(folder), views=section(1))


def test_repair_labels_lost_units_of_a_view_again_and_puts_its_document_back(tmp_path: Path) -> None:
    write_rows(tmp_path)
    run = config(tmp_path, views=section(2))
    precompute(run)
    before = {k: v for k, v in objects_of(tmp_path / "cask").items() if not k.startswith("catalog")}
    objects = StoreObjects.at(str(tmp_path / "cask"))
    shard = next(key for key in before if "/v0002/" in key and "/c/3/" in key)
    objects.replace(shard, b"rubbish")
    objects.remove(keys.view_manifest(1))
    assert {problem.key for problem in verify(objects.uri).problems} == {shard, keys.view_manifest(1)}
    report = repair(run)
    assert report.left == ()
    assert report.relabelled == ((shard.split("/")[1], "s0000-v0002-00000003"),)
    assert {k: v for k, v in objects_of(tmp_path / "cask").items() if not k.startswith("catalog")} == before
    assert verify(objects.uri).problems == ()


def test_repair_leaves_units_of_views_that_the_run_does_not_describe(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    objects = StoreObjects.at(str(tmp_path / "cask"))
    shard = next(key for key in objects_of(tmp_path / "cask") if "/v0002/" in key and "/c/3/" in key)
    objects.replace(shard, b"rubbish")
    report = repair(config(tmp_path, views=section(1)))
    assert [
        "view 2 must be labelled again, and this run's [views]" in each.advice for each in report.left
    ] == [True]
    assert objects.read_if_present(keys.commit(shard.split("/")[1], "s0000-v0002-00000003")) is not None


def test_a_lost_document_is_not_made_up(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    StoreObjects.at(str(tmp_path / "cask")).remove(keys.view_manifest(1))
    with pytest.raises(CorruptObject, match=r"views/v0001\.json of .* is gone"):
        precompute(config(tmp_path, views=section(2)))


def test_a_drifted_library_is_found_by_whoever_labels_and_by_whoever_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softcask.pipeline.views.flip import FlipOptions

    write_rows(tmp_path)
    precompute(config(tmp_path, teacher("a"), views=section(1)))
    store = open_store(str(tmp_path / "cask"))
    monkeypatch.setattr(FlipOptions, "apply", lambda self, rows, drawn: rows + np.float32(0.25))
    with pytest.raises(ManifestMismatch, match="does not come out here as it did"):
        replay(store, tmp_path, [1]).read(np.arange(9), 1)
    with pytest.raises(ManifestMismatch, match="does not come out here as it did"):
        precompute(config(tmp_path, teacher("b"), views=section(1)))


def test_code_of_users_is_replayed_only_by_who_states_it(tmp_path: Path) -> None:
    write_rows(tmp_path)
    run = config(tmp_path, views=section(1, JITTER))
    precompute(run)
    store = open_store(str(tmp_path / "cask"))
    with pytest.raises(StoreError, match="nothing that a store names is imported"):
        replay(store, tmp_path, [1])
    other = config(tmp_path, views=section(1, {**JITTER, "kwargs": {"scale": 0.3}})).views
    with pytest.raises(ManifestMismatch, match=r"kwargs"):
        replay(store, tmp_path, [1], augmentation=other)
    assert replay(store, tmp_path, [1], augmentation=run.views).read(np.arange(4), 1).inputs_B.shape == (
        4,
        6,
        4,
    )


def test_a_partner_that_is_gone_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    objects = StoreObjects.at(str(tmp_path / "cask"))
    before = open_store(objects.uri)
    partner_B = replay(before, tmp_path, [1]).read(np.arange(ROWS), 1).partner_B
    assert partner_B is not None
    gone = int(partner_B[0])
    drop(objects, plan_drop(objects, sample_ids=[str(before.rows.sample_ids[gone])]))
    store = open_store(objects.uri)
    again = replay(store, tmp_path, [1])
    with pytest.raises(MisalignedRows, match=f"the first is '{before.rows.sample_ids[gone]}'"):
        again.read(store.rows.find([str(before.rows.sample_ids[0])]), 1)
    spared = np.flatnonzero((partner_B != gone) & (np.arange(ROWS) != gone))
    rows_B = store.rows.find(before.rows.sample_ids[spared].tolist())
    assert len(again.read(rows_B, 1).inputs_B) == len(spared)


def test_soft_targets_of_a_view_are_its_own_and_views_are_chosen(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    precompute(config(tmp_path, teacher("a"), teacher("c", kwargs={"seed": 3}), views=section(1)))
    store, rows_B = open_store(str(tmp_path / "cask")), np.arange(20)
    targets = SoftTargets(store, ["a", "b"])
    for view in (0, 2):
        logits = np.stack([store.logits(name, rows_B, view=view).astype(np.float64) for name in "ab"])
        raised = np.exp(logits / 4 - (logits / 4).max(axis=-1, keepdims=True))
        expected = (raised / raised.sum(axis=-1, keepdims=True)).mean(axis=0)
        found = in_view(targets, store, view).probabilities(rows_B, 4.0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert chosen_views(store, ["a", "b"], None) == (0, 1, 2)
    assert chosen_views(store, ["a", "c"], None) == (0, 1)
    assert chosen_views(store, ["a"], [2, 1]) == (2, 1)
    with pytest.raises(StoreError, match="no view 7"):
        chosen_views(store, ["a"], [7])
    with pytest.raises(ConfigError, match="each once"):
        chosen_views(store, ["a"], [1, 1])


def test_a_killed_run_goes_on_in_the_view_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    file = tmp_path / "broken"
    file.touch()
    broken = teacher("a", factory="toy_models:broken_while", kwargs={"row": 999, "file": str(file)})
    precompute(config(tmp_path, broken, cask="whole", views=section(2)))
    run = config(tmp_path, broken, views=section(2))
    done: list[str] = []

    def stop(progress: Any) -> None:
        if progress.task is not None:
            done.append(progress.task.unit)
            if len(done) == 12:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(run, watch=stop)
    assert any("v0001" in unit for unit in done) and not any("v0002" in unit for unit in done)
    precompute(run)
    whole = {k: v for k, v in objects_of(tmp_path / "whole").items() if not k.startswith("catalog")}
    assert {k: v for k, v in objects_of(tmp_path / "cask").items() if not k.startswith("catalog")} == whole
