"""The whole job on the serial executor: what is stored, what is done again, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from tests import toy_models
from tests.worlds import (
    CLASSES,
    ROWS,
    identities_of,
    objects_of,
    run_config,
    sections,
    teacher,
    write_rows,
)

from softcask.pipeline.precompute import driver as job
from softcask.pipeline.precompute import preparation
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas.errors import (
    ConfigError,
    FactoryError,
    ManifestMismatch,
    QuarantineExceeded,
    StoreAccess,
    StoreError,
    TeacherError,
    TransferSetError,
    UnitsGivenUp,
)
from softcask.storage_schemas.runs import RunRecord


def expected_logits(folder: Path, seed: int, batch: int = 16, unit: int = 32) -> np.ndarray:
    """The bare torch loop over the same batches."""
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    module = toy_models.net(seed)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(inputs), unit):
            for first in range(start, min(start + unit, len(inputs)), batch):
                parts.append(module(inputs[first : min(first + batch, start + unit)] * 0.5))
    return torch.cat(parts).numpy()


def test_what_is_stored_is_what_a_bare_torch_loop_computes(tmp_path: Path) -> None:
    write_rows(tmp_path)
    summary = precompute(run_config(tmp_path))
    store = open_store(str(tmp_path / "cask"))
    for name, seed in (("a", 0), ("b", 1)):
        expected = expected_logits(tmp_path, seed).astype(np.float64)
        found = store.logits(name, np.arange(ROWS)).astype(np.float64)
        # fp16 has 11 significant bits of the distance to the row's maximum.
        distance = expected.max(axis=1, keepdims=True) - expected
        assert (np.abs(found - expected) <= distance * 2**-11 + 1e-6 * (1 + np.abs(expected))).all()
        labels = np.load(tmp_path / "labels.npy")
        assert summary.teachers[name].correct == (expected.argmax(axis=1) == labels).sum()
    assert (summary.rows, summary.tasks) == (ROWS, -(-ROWS // 32))


def test_plain_zarr_and_pandas_give_the_soft_targets_without_softcask(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path))
    cask = tmp_path / "cask"
    shifted = zarr.open_group(cask / "teachers/a/logits/s0000/v0000", mode="r")["logits"][:].astype(
        np.float64
    )
    ids = pq.read_table(cask / "transfer_set/s0000/rows.parquet")["sample_id"].to_pylist()
    store = open_store(str(cask))
    for temperature in (0.5, 1, 4, 20):
        raised = np.exp(shifted / temperature)
        expected = raised / raised.sum(axis=1, keepdims=True)
        frame = store.to_pandas("a", temperature=temperature)
        assert frame["sample_id"].tolist() == ids
        np.testing.assert_allclose(
            frame[[str(c) for c in range(CLASSES)]].to_numpy(), expected, atol=1e-6, rtol=0
        )


def test_a_finished_job_runs_no_teacher_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path))
    before = identities_of(tmp_path / "cask")
    monkeypatch.setattr(job, "executor_from", _no_executor)
    monkeypatch.setattr(preparation, "index_rows", lambda *_, **__: pytest.fail("rows were indexed again"))
    again = precompute(run_config(tmp_path))
    assert (again.tasks, again.run) == (0, None)
    assert identities_of(tmp_path / "cask") == before


class _NoExecutor:
    name, workers = "none", 0

    def run(self, pools: object) -> object:
        pytest.fail("a teacher was run")


def _no_executor(_: object) -> _NoExecutor:
    return _NoExecutor()


def test_a_further_teacher_runs_alone_and_rewrites_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    three = [teacher(name, kwargs={"seed": seed}) for seed, name in enumerate("abc")]
    precompute(run_config(tmp_path, *three))
    before = identities_of(tmp_path / "cask")
    summary = precompute(run_config(tmp_path, *three, teacher("d", kwargs={"seed": 3})))
    assert {name: done.new_rows for name, done in summary.teachers.items()} == {
        "a": 0,
        "b": 0,
        "c": 0,
        "d": ROWS,
    }
    assert summary.generation == 2
    after = identities_of(tmp_path / "cask")
    changed = [key for key in before if after[key] != before[key]]
    assert changed == ["catalog/newest.json"]


def test_quarantined_rows_keep_their_place_and_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=(3, 40))
    summary = precompute(run_config(tmp_path))
    assert (summary.rows, summary.quarantined) == (ROWS - 2, 2)
    cask = tmp_path / "cask"
    reasons = pq.read_table(cask / "transfer_set/s0000/rows.parquet")["quarantine"].to_pylist()
    assert [row for row, reason in enumerate(reasons) if reason] == [3, 40]
    plain = zarr.open_group(cask / "teachers/a/logits/s0000/v0000", mode="r")["logits"][:]
    assert np.flatnonzero(np.isnan(plain).any(axis=1)).tolist() == [3, 40]
    store = open_store(str(cask))
    assert len(store.rows) == ROWS - 2 == len(store.stats("a"))
    assert store.rows.positions[3] == 4
    np.testing.assert_array_equal(
        store.logits("a", np.array([3]))[0],
        (plain[4] + np.float32(store_row_max(cask)[4])).astype(np.float32),
    )


def store_row_max(cask: Path) -> np.ndarray:
    return zarr.open_group(cask / "teachers/a/logits/s0000/v0000", mode="r")["row_max"][:]


def test_too_many_quarantined_rows_stop_the_run_before_any_teacher(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=tuple(range(30)))
    with pytest.raises(QuarantineExceeded, match="30 of 230"):
        precompute(run_config(tmp_path))


def test_a_lower_bound_on_quarantined_rows_holds_for_rows_that_are_indexed_already(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=(3, 40))
    precompute(run_config(tmp_path))
    before = identities_of(tmp_path / "cask")
    stricter = sections(tmp_path)
    stricter["transfer_set"]["max_quarantined"] = 0.001
    for run in (precompute, plan):
        with pytest.raises(QuarantineExceeded, match=r"2 of 230 rows \(0.87%\).* at most 0.10%.*raise"):
            run(RunConfig.model_validate(stricter))
    assert identities_of(tmp_path / "cask") == before
    stricter["transfer_set"]["max_quarantined"] = 2 / 230
    assert precompute(RunConfig.model_validate(stricter)).quarantined == 2


def test_unlabelled_rows_are_first_class(tmp_path: Path) -> None:
    write_rows(tmp_path)
    config = run_config(tmp_path, transfer_set={"kind": "arrays", "inputs": str(tmp_path / "inputs.npy")})
    summary = precompute(config)
    assert (summary.teachers["a"].labelled, summary.teachers["a"].suspicious) == (0, False)
    assert open_store(str(tmp_path / "cask")).rows.labels.tolist() == [-1] * ROWS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unusable_logits_name_teacher_unit_and_row(tmp_path: Path, value: float) -> None:
    write_rows(tmp_path)
    bad = teacher("bad", factory="toy_models:faulty", kwargs={"where": 70 * 0.5, "value": value})
    with pytest.raises(UnitsGivenUp) as caught:
        precompute(run_config(tmp_path, bad))
    for part in ("'bad'", "1 unit was given up", "TeacherError", "s0000-v0000-00000002", "inputs-00000070"):
        assert part in str(caught.value)


def test_a_teacher_with_other_classes_is_refused_and_its_name_stays_free(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(TeacherError, match="7"):
        precompute(run_config(tmp_path, teacher("a", kwargs={"classes": 7})))
    assert precompute(run_config(tmp_path, teacher("a"))).teachers["a"].rows == ROWS


def test_a_name_stays_free_until_a_unit_is_committed(tmp_path: Path) -> None:
    write_rows(tmp_path)
    one_unit = {"uri": str(tmp_path / "cask"), "unit_rows": ROWS}
    faulty = teacher("a", factory="toy_models:faulty", kwargs={"where": 0.5})
    with pytest.raises(TeacherError, match="inputs-00000001"):
        precompute(run_config(tmp_path, faulty, store=one_unit))
    precompute(run_config(tmp_path, teacher("a"), store=one_unit))
    undisturbed = tmp_path / "fresh"
    precompute(run_config(tmp_path, teacher("a"), store={**one_unit, "uri": str(undisturbed)}))
    assert objects_of(tmp_path / "cask") == objects_of(undisturbed)


def test_a_factory_that_raises_is_told_with_its_own_words(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(FactoryError, match="no such checkpoint on the moon"):
        precompute(run_config(tmp_path, teacher("a", factory="toy_models:raising")))


def test_a_changed_teacher_under_an_old_name_is_refused_field_by_field(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    before = identities_of(tmp_path / "cask")
    changed = teacher("a", kwargs={"seed": 9}, code_version="2")
    with pytest.raises(ManifestMismatch) as caught:
        precompute(run_config(tmp_path, changed))
    assert 'fingerprint.code_version: found "2", expected ""' in str(caught.value)
    assert "fingerprint.kwargs.seed: found 9, expected (absent)" in str(caught.value)
    assert identities_of(tmp_path / "cask") == before


def test_code_that_changed_behind_a_factory_is_caught_by_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    unsealed = run_config(tmp_path, teacher("a"), store={"uri": str(tmp_path / "cask"), "unit_rows": 230})
    precompute(unsealed)
    (tmp_path / "cask/teachers/a/commits/s0000-v0000-00000000.json").rename(tmp_path / "kept.json")
    _recommit_another(tmp_path)
    original = toy_models.net

    def changed(**kwargs: int) -> torch.nn.Module:
        return torch.nn.Sequential(original(**kwargs), torch.nn.Softsign())

    import toy_models as as_the_config_imports_it

    monkeypatch.setattr(as_the_config_imports_it, "net", changed)
    with pytest.raises(ManifestMismatch, match="probe row|parameters"):
        precompute(unsealed)


def _recommit_another(folder: Path) -> None:
    """A receipt of another view, so that the name counts as used while unit 0 is to be done again."""
    receipt = (folder / "kept.json").read_bytes()
    (folder / "cask/teachers/a/commits/s0000-v0001-00000000.json").write_bytes(receipt)


def test_rows_that_changed_since_they_were_indexed_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    inputs = np.load(tmp_path / "inputs.npy")
    inputs[17] += 1
    np.save(tmp_path / "inputs.npy", inputs)
    with pytest.raises(ManifestMismatch, match="content_hash: differs in 1 rows, first in row 17"):
        precompute(run_config(tmp_path, teacher("a"), teacher("b")))


def test_rows_that_change_while_they_are_labelled_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    index = preparation.index_rows

    def index_then_change(*args: object, **kwargs: object) -> object:
        table = index(*args, **kwargs)  # type: ignore[arg-type]
        inputs = np.load(tmp_path / "inputs.npy")
        inputs[100] += 1
        np.save(tmp_path / "inputs.npy", inputs)
        return table

    monkeypatch.setattr(preparation, "index_rows", index_then_change)
    with pytest.raises(
        UnitsGivenUp, match=r"TransferSetError: row 100 \('inputs-00000100'\) of unit s0000-v0000-00000003"
    ):
        precompute(run_config(tmp_path, teacher("a")))


def test_touched_files_with_the_same_rows_are_known_again(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path))
    np.save(tmp_path / "inputs.npy", np.load(tmp_path / "inputs.npy"))
    assert precompute(run_config(tmp_path)).tasks == 0


def test_another_unit_length_or_other_classes_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path))
    with pytest.raises(ManifestMismatch, match="unit_rows: found 64, expected 32"):
        precompute(run_config(tmp_path, store={"uri": str(tmp_path / "cask"), "unit_rows": 64}))
    with pytest.raises(ManifestMismatch, match="other classes"):
        precompute(run_config(tmp_path, classes={"names": list("vwxyz")}))


def test_a_full_disk_is_told_before_any_teacher_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr(job, "executor_from", _no_executor)
    with pytest.raises(StoreAccess, match="free"):
        precompute(run_config(tmp_path))


def test_a_stated_group_must_share_batches(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(ConfigError, match="batch_size \\[8, 16\\]"):
        precompute(run_config(tmp_path, teacher("a", group="g"), teacher("b", group="g", batch_size=8)))


def test_teachers_with_other_needs_run_in_pools_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path)
    both = [teacher("a"), teacher("b", kwargs={"seed": 1}, batch_size=8)]
    apart, alone = tmp_path / "apart", tmp_path / "alone"
    for folder in (apart, alone):
        write_rows(folder)
    summary = precompute(run_config(apart, *both))
    assert summary.tasks == 2 * -(-ROWS // 32)
    for member in both:
        precompute(run_config(alone, member))
    for name in ("a", "b"):
        left, right = (objects_of(folder / "cask/teachers" / name) for folder in (apart, alone))
        assert left == right


def test_the_plan_says_what_is_left_and_writes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    first = plan(run_config(tmp_path))
    assert not (tmp_path / "cask").exists()
    assert (first.teachers["a"].units, first.teachers["a"].committed, first.teachers["a"].rows) == (
        8,
        0,
        ROWS,
    )
    precompute(run_config(tmp_path, teacher("a")))
    second = plan(run_config(tmp_path))
    assert (second.teachers["a"].committed, second.teachers["b"].committed) == (8, 0)
    assert (second.teachers["a"].rows, second.teachers["b"].rows) == (0, ROWS)


def test_batch_size_and_grouping_choose_units_from_the_data_alone(tmp_path: Path) -> None:
    write_rows(tmp_path)
    store = {"uri": str(tmp_path / "cask")}
    summary = precompute(run_config(tmp_path, store=store))
    assert summary.unit_rows == 16  # 230 rows in some 64 units, whole batches of 16


def test_a_mistake_in_the_classes_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(TransferSetError, match="expected 0 to 2"):
        precompute(run_config(tmp_path, classes={"count": 3}))
    assert precompute(run_config(tmp_path)).rows == ROWS


def test_a_store_that_was_made_otherwise_but_holds_no_unit_says_that_it_may_go(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(TeacherError):
        precompute(run_config(tmp_path, classes={"count": 9}))
    with pytest.raises(ManifestMismatch, match="remove .*cask, in which no unit is committed yet"):
        precompute(run_config(tmp_path))


def test_a_copy_of_the_data_makes_the_same_store(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_rows(tmp_path / name)
        os.utime(tmp_path / name / "inputs.npy", ns=(1, {"one": 1, "two": 2}[name]))
        precompute(run_config(tmp_path / name))
    assert objects_of(tmp_path / "one" / "cask") == objects_of(tmp_path / "two" / "cask")


def records_of(cask: Path) -> list[RunRecord]:
    return [
        RunRecord.from_bytes(path.read_bytes(), str(path)) for path in sorted(cask.glob("runs/*/run.json"))
    ]


def test_a_run_that_fails_half_way_leaves_a_record_of_what_it_did(tmp_path: Path) -> None:
    write_rows(tmp_path)
    late = teacher("a", factory="toy_models:faulty", kwargs={"where": 200 * 0.5})
    with pytest.raises(UnitsGivenUp, match="inputs-00000200"):
        precompute(run_config(tmp_path, late))
    (record,) = records_of(tmp_path / "cask")
    # Row 200 is in the seventh of eight units; the last one has 230 - 7 * 32 rows.
    assert (record.units["a"], record.rows["a"]) == (7, ROWS - 32)
    (failed,) = record.given_up
    assert (failed.teachers, failed.unit, failed.attempts) == (("a",), "s0000-v0000-00000006", 4)
    assert "TeacherError" in failed.error and "inputs-00000200" in failed.error
    assert record.device_seconds["a"] > 0
    assert record.wall_seconds > record.device_seconds["a"]
    assert record.devices == ("cpu",)


def test_what_was_given_up_is_tried_again_by_a_later_run_and_nothing_else_is(tmp_path: Path) -> None:
    write_rows(tmp_path)
    broken = teacher(
        "a", factory="toy_models:broken_while", kwargs={"row": 70, "file": str(tmp_path / "cause")}
    )
    (tmp_path / "cause").touch()
    with pytest.raises(UnitsGivenUp, match="sealed as generation 1"):
        precompute(run_config(tmp_path, broken))
    assert len(open_store(str(tmp_path / "cask"), allow_partial=True).rows) == ROWS
    before = identities_of(tmp_path / "cask" / "teachers")
    (tmp_path / "cause").unlink()
    summary = precompute(run_config(tmp_path, broken))
    assert (summary.tasks, summary.teachers["a"].rows) == (1, ROWS)
    after = identities_of(tmp_path / "cask" / "teachers")
    assert {key: after[key] for key in before} == before


def test_rows_that_every_unit_stumbles_over_end_the_run_at_the_third(tmp_path: Path) -> None:
    write_rows(tmp_path)
    seen: list[Progress] = []
    always = teacher("a", factory="toy_models:broken_after_probe", kwargs={})
    with pytest.raises(TeacherError, match="no kernel image"):
        precompute(run_config(tmp_path, always), watch=seen.append)
    assert not [step for step in seen if step.stage == "label" and step.done]


def test_a_run_that_is_interrupted_leaves_a_record_too(tmp_path: Path) -> None:
    write_rows(tmp_path)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "label" and progress.done == 2 * 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(run_config(tmp_path, teacher("a")), watch=interrupt)
    (record,) = records_of(tmp_path / "cask")
    assert record.units == {"a": 2}


def test_a_run_that_fails_before_anything_is_done_leaves_no_record(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(TeacherError):
        precompute(run_config(tmp_path, teacher("a", kwargs={"classes": 7})))
    assert records_of(tmp_path / "cask") == []


def test_a_record_that_cannot_be_written_does_not_hide_why_the_run_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)

    publish = StoreObjects.publish

    def refuse(objects: StoreObjects, key: str, data: bytes) -> bool:
        if key.endswith("/run.json"):
            raise StoreAccess("no space left")
        return publish(objects, key, data)

    monkeypatch.setattr(StoreObjects, "publish", refuse)
    late = teacher("a", factory="toy_models:faulty", kwargs={"where": 200 * 0.5})
    with pytest.raises(UnitsGivenUp, match="inputs-00000200") as caught:
        precompute(run_config(tmp_path, late))
    assert "no space left" in caught.value.__notes__[0]


def test_a_unit_length_that_makes_tiny_chunks_is_refused_before_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    monkeypatch.setattr(preparation, "index_rows", lambda *_, **__: pytest.fail("rows were read"))
    store = {"uri": str(tmp_path / "cask"), "unit_rows": 1_000_003}  # a prime
    with pytest.raises(StoreError, match="1000003|1,000,003"):
        precompute(run_config(tmp_path, store=store))


def test_what_a_file_manager_leaves_in_a_store_is_in_nobodys_way(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(run_config(tmp_path, teacher("a")))
    for folder in ("teachers", "transfer_set", "teachers/a/commits"):
        for name in (".DS_Store", "README"):
            (tmp_path / "cask" / folder / name).write_bytes(b"x")
    summary = precompute(run_config(tmp_path, teacher("a"), teacher("b")))
    assert (summary.teachers["a"].new_rows, summary.teachers["b"].new_rows) == (0, ROWS)
    assert len(open_store(str(tmp_path / "cask"), allow_partial=True).rows) == ROWS
