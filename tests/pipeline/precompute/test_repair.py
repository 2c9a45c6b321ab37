from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import toy_models
from tests.stores import Killed, flip
from tests.worlds import identities_of, objects_of, run_config, sections, teacher, write_rows

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.derive import reencode
from softcask.pipeline.precompute import repair as module
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.repair import RepairReport, repair
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import StoreAccess, StoreError

ROWS = 100  # units of 32 rows: three and a short one
UNIT = "s0000-v0000-00000001"
SHARD = "teachers/a/logits/s0000/v0000/logits/c/1/0"
STATS = keys.stats_part("a", "s0000", 0, 1)
RECEIPT = keys.commit("a", UNIT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a finished store of teachers `a` and `b`, in which b came later."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder, rows=ROWS, unreadable=(40,))
    precompute(run_config(folder, teacher("a")))
    precompute(run_config(folder))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(whole, tmp_path / "world")
    return tmp_path / "world"


def cask(folder: Path) -> Path:
    return folder / "cask"


def spoil(folder: Path, key: str, how: str = "flip") -> None:
    path = cask(folder) / key
    data = path.read_bytes()
    path.unlink() if how == "remove" else path.write_bytes(flip(data, len(data) // 2))


def sound(folder: Path) -> bool:
    return verify(str(cask(folder))).problems == ()


def logits_are_right(folder: Path) -> bool:
    store = open_store(str(cask(folder)))
    kept = np.delete(np.arange(ROWS), 40)
    for name, seed in (("a", 0), ("b", 1)):
        with torch.inference_mode():
            expected = toy_models.net(seed)(
                torch.from_numpy(np.load(folder / "inputs.npy"))[kept] * 0.5
            ).numpy()
        if not np.allclose(store.logits(name, np.arange(ROWS - 1)), expected, atol=0.1):
            return False
    return True


def actions(report: RepairReport) -> dict[str, str]:
    return {each.problem.key: each.action for each in report.found}


def test_a_sound_store_is_left_as_it_is(folder: Path) -> None:
    before = identities_of(cask(folder))
    report = repair(run_config(folder))
    assert (report.found, report.relabelled, report.left) == ((), (), ())
    assert identities_of(cask(folder)) == before


def test_every_object_of_a_store_is_mended_or_what_to_do_is_told(whole: Path, folder: Path) -> None:
    """Whatever object is flipped or gone: what was there comes back, and all others keep their bytes."""
    standing = objects_of(cask(folder))
    like_others = ("/b/", "c/0", "c/2", "00000000.", "00000002.")
    chosen = [key for key in standing if not any(part in key for part in like_others)]
    for key, how in itertools.product(chosen, ("flip", "remove")):
        spoil(folder, key, how)
        report = repair(run_config(folder))
        assert report.left == (), (key, how)
        assert sound(folder), (key, how)
        after = objects_of(cask(folder))
        mended = {name: data for name, data in after.items() if not name.startswith("catalog/")}
        assert mended == {name: data for name, data in standing.items() if not name.startswith("catalog/")}
        shutil.rmtree(cask(folder))
        shutil.copytree(cask(whole), cask(folder))


B = teacher("b", kwargs={"seed": 1})
OTHERWISE: dict[str, dict[str, Any]] = {
    "transfer_set/s0000/segment.json": {"store": {"unit_rows": 64}},
    "teachers/a/teacher.json": {"teachers": [teacher("a", preprocessing={}), B]},
    "teachers/a/probe.parquet": {"teachers": [B]},
    keys.ROOT: {"classes": {"count": 6}},
}


@pytest.mark.parametrize("how", ["flip", "remove"])
@pytest.mark.parametrize("key", OTHERWISE)
def test_what_the_run_would_make_otherwise_is_told_and_nothing_is_touched(
    folder: Path, key: str, how: str
) -> None:
    spoil(folder, key, how)
    spoil(folder, keys.stats_part("b", "s0000", 0, 0))
    before = identities_of(cask(folder))
    world = sections(folder)
    changed = {
        name: value if name == "teachers" else world[name] | value for name, value in OTHERWISE[key].items()
    }
    report = repair(RunConfig.model_validate(world | changed))
    told = {each.problem.key: each.advice for each in report.left}
    assert "put it back from a copy" in told[key]
    assert identities_of(cask(folder)) == before


def test_exactly_the_damaged_units_are_labelled_again(folder: Path) -> None:
    spoil(folder, SHARD)
    before = identities_of(cask(folder))
    report = repair(run_config(folder))
    assert report.relabelled == (("a", UNIT),)
    after = identities_of(cask(folder))
    again = {key for key in before if after[key] != before[key] and not key.startswith("catalog/")}
    assert again == {SHARD, RECEIPT}, "all else of the unit was found whole and taken"
    assert sound(folder) and logits_are_right(folder)


def test_what_follows_from_logits_needs_no_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "precompute", None)
    standing = objects_of(cask(folder))
    metadata = "teachers/a/logits/s0000/v0000/logits/zarr.json"
    for key in (STATS, keys.commit("b", UNIT), metadata):
        spoil(folder, key)
    spoil(folder, keys.stats_part("b", "s0000", 0, 3), "remove")
    report = repair(run_config(folder))
    assert set(actions(report).values()) == {"statistics", "receipt", "restore"}
    assert (report.relabelled, report.left) == ((), ())
    assert objects_of(cask(folder)) == standing


def test_to_check_changes_nothing(folder: Path) -> None:
    for key in (SHARD, keys.generation(2), keys.CATALOG_POINTER, STATS):
        spoil(folder, key)
    before = identities_of(cask(folder))
    report = repair(run_config(folder), check=True)
    assert actions(report) == {
        SHARD: "label",
        STATS: "label",
        keys.generation(2): "seal",
        keys.CATALOG_POINTER: "seal",
    }
    assert report.relabelled == (("a", UNIT),)
    assert identities_of(cask(folder)) == before


def test_damage_all_over_is_mended_at_once(folder: Path) -> None:
    for key in (
        keys.ROOT,
        keys.segment_rows("s0000"),
        SHARD,
        keys.commit("b", UNIT),
        keys.commit("b", "s0000-v0000-00000000"),
        keys.stats_part("b", "s0000", 0, 3),
        keys.generation(1),
        keys.generation(2),
        keys.CATALOG_POINTER,
        keys.source_facts("s0000"),
    ):
        spoil(folder, key)
    (table,) = (path for path in cask(folder).glob("catalog/00000001/commits-*.parquet"))
    table.unlink()
    with pytest.raises(StoreError, match=r"Units that stand: 4 of 'a', 4 of 'b'.*--forget-drops"):
        repair(run_config(folder))
    report = repair(run_config(folder), forget_drops=True)
    assert report.left == ()
    assert sound(folder) and logits_are_right(folder)
    assert report.aside == (keys.source_facts("s0000"),)


def test_rows_are_indexed_again_only_from_the_very_source(folder: Path) -> None:
    spoil(folder, keys.segment_rows("s0000"))
    inputs = np.load(folder / "inputs.npy")
    inputs[3] += 1
    np.save(folder / "inputs.npy", inputs)
    report = repair(run_config(folder))
    (left,) = report.left
    assert left.problem.key == keys.segment_rows("s0000")
    assert "give another one than was sealed" in left.advice


def test_a_teacher_that_the_run_does_not_have_is_told_of(folder: Path) -> None:
    spoil(folder, SHARD)
    spoil(folder, keys.stats_part("b", "s0000", 0, 0))
    report = repair(run_config(folder, teacher("b", kwargs={"seed": 1})))
    (left,) = report.left
    assert left.problem.key == SHARD and "'a' must label it again" in left.advice
    assert keys.stats_part("b", "s0000", 0, 0) in report.restored


def test_a_dropped_teacher_stays_dropped_when_the_catalog_is_made_again(folder: Path) -> None:
    objects = StoreObjects.at(str(cask(folder)))
    drop(objects, plan_drop(objects, teachers=["b"], sample_ids=["inputs-00000007"]))
    for path in cask(folder).glob("catalog/*/commits-*.parquet"):
        path.write_bytes(b"")
    assert repair(run_config(folder, teacher("a"))).left == ()
    store = open_store(str(cask(folder)))
    assert list(store.teachers) == ["a"] and len(store.rows) == ROWS - 2
    assert sound(folder)


def test_to_drop_a_teacher_is_the_way_out_where_its_manifest_is_lost(folder: Path) -> None:
    spoil(folder, "teachers/a/teacher.json", "remove")
    objects = StoreObjects.at(str(cask(folder)))
    drop(objects, plan_drop(objects, teachers=["a"]))
    assert list(open_store(objects.uri).teachers) == ["b"]


def test_what_cannot_be_read_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = StoreObjects.read

    def refused(self: StoreObjects, key: str) -> bytes:
        if key == SHARD:
            raise StoreAccess("the network is down")
        return read(self, key)

    monkeypatch.setattr(StoreObjects, "read", refused)
    before = identities_of(cask(folder))
    (left,) = repair(run_config(folder)).left
    assert left.action == "none" and "see to the filesystem" in left.advice
    assert identities_of(cask(folder)) == before


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """All that is written or removed by this process is counted; before the n-th it dies. 0: it lives."""
    count, die_at = itertools.count(1), 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: StoreObjects, *arguments: Any) -> Any:
            if next(count) == die_at:
                raise Killed
            return original(self, *arguments)

        return call

    for name in ("publish", "replace", "remove"):
        monkeypatch.setattr(StoreObjects, name, counted(getattr(StoreObjects, name)))

    def arm(step: int) -> None:
        nonlocal count, die_at
        count, die_at = itertools.count(1), step

    return arm


def test_killed_anywhere_it_can_be_run_again(
    folder: Path, tmp_path: Path, dying: Callable[[int], None]
) -> None:
    config: RunConfig = run_config(folder)
    spoil(folder, SHARD)
    spoil(folder, keys.commit("b", UNIT))
    spoil(folder, keys.stats_part("b", "s0000", 0, 0))
    for path in cask(folder).glob("catalog/00000002/commits-*.parquet"):
        path.unlink()
    shutil.copytree(cask(folder), tmp_path / "spoilt")
    for step in itertools.count(1):
        dying(step)
        try:
            repair(config)
        except Killed:
            dying(0)
        else:
            break
        assert repair(config).left == (), step
        assert sound(folder) and logits_are_right(folder), step
        shutil.rmtree(cask(folder))
        shutil.copytree(tmp_path / "spoilt", cask(folder))
    assert step > 10
    assert sound(folder)


def test_a_catalog_that_is_gone_is_not_made_again_unasked(folder: Path) -> None:
    """What was dropped would come back."""
    objects = StoreObjects.at(str(cask(folder)))
    drop(objects, plan_drop(objects, teachers=["b"]))
    shutil.rmtree(cask(folder) / "catalog")
    before = identities_of(cask(folder))
    with pytest.raises(StoreError, match="nothing says what was dropped"):
        repair(run_config(folder))
    assert "nothing says what was dropped" in repair(run_config(folder), check=True).forgotten
    assert identities_of(cask(folder)) == before
    assert repair(run_config(folder), forget_drops=True).left == ()
    assert sorted(open_store(objects.uri).teachers) == ["a", "b"]
    assert repair(run_config(folder)).forgotten == ""


@pytest.mark.parametrize("key", ["teacher.json", "probe.parquet"])
def test_documents_of_an_entry_that_no_run_names_are_made_again(folder: Path, key: str) -> None:
    reencode(str(cask(folder)), teacher="a", into="a8", request=CodecRequest(name="dense8"))
    standing = objects_of(cask(folder))
    for how in ("flip", "remove"):
        spoil(folder, f"teachers/a8/{key}", how)
        assert repair(run_config(folder)).left == ()
        assert objects_of(cask(folder)) == standing


def test_probe_rows_of_an_entry_made_before_its_manifest_stood_there_too(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as before:
        before.setattr("softcask.pipeline.pinning.probe_of_entry", lambda _: tables.PROBE.empty_table())
        reencode(str(cask(folder)), teacher="a", into="a8", request=CodecRequest(name="dense8"))
    standing = objects_of(cask(folder))
    spoil(folder, "teachers/a8/probe.parquet", "remove")
    assert repair(run_config(folder)).left == ()
    assert objects_of(cask(folder)) == standing
    spoil(folder, "teachers/a8/teacher.json")
    assert [each.action for each in repair(run_config(folder)).left] == ["none"]


def test_nothing_is_touched_before_a_codecs_array_is_back(folder: Path) -> None:
    request = CodecRequest(name="lowrank", max_bytes=32)
    reencode(str(cask(folder)), teacher="a", into="low", request=request)
    (array,) = (cask(folder) / "teachers" / "low" / "codec").glob("basis-*.npy")
    array.unlink()
    spoil(folder, keys.stats_part("b", "s0000", 0, 0))
    before = identities_of(cask(folder))
    report = repair(run_config(folder))
    told = {each.problem.key: each.advice for each in report.left}
    assert "put it back from a copy" in told[f"teachers/low/codec/{array.name}"]
    assert identities_of(cask(folder)) == before
