"""A codec chosen by budget: what is picked, pinned, refused, and left alone when the job runs again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import toy_models
from tests.worlds import identities_of, run_config, sections, teacher, write_rows

from softcask.pipeline.precompute import driver
from softcask.pipeline.precompute.codecs import Settled
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.storage_schemas.errors import CodecDrift, ConfigError, ManifestMismatch


def config_with(folder: Path, codec: Any, *teachers: dict[str, Any], **store: Any) -> RunConfig:
    described = sections(folder, *(teachers or (teacher("a"),)))
    described["store"] |= {"codec": codec, **store}
    return RunConfig.model_validate(described)


def write_alike_rows(folder: Path, rows: int) -> None:
    """Rows none of which begins with its number, which for late rows outweighs all the rest."""
    write_rows(folder, rows=rows)
    inputs = np.load(folder / "inputs.npy")
    inputs[:, 0, 0] /= rows
    np.save(folder / "inputs.npy", inputs)


def probabilities(folder: Path, temperature: float) -> np.ndarray:
    """The teacher's soft targets in float64."""
    with torch.inference_mode():
        logits = toy_models.net(0)(torch.from_numpy(np.load(folder / "inputs.npy")) * 0.5).double()
    return torch.softmax(logits / temperature, 1).numpy()


def test_a_budget_picks_a_codec_says_why_and_holds_on_every_row(tmp_path: Path) -> None:
    write_rows(tmp_path)
    summary = precompute(config_with(tmp_path, {"name": "auto", "max_kl": 1e-3}))
    found = summary.teachers["a"]
    assert found.codec == "dense8"  # 13 bytes a row of 5 classes, where dense16 takes 14
    assert found.codec_reason.startswith("dense8: 13 B a row") and "dense16: 14 B a row" in found.codec_reason
    store = open_store(str(tmp_path / "cask"))
    logits = store.logits("a", np.arange(230)).astype(np.float64)
    for temperature in (0.5, 1.0, 20.0):
        expected = probabilities(tmp_path, temperature)
        log_q = logits / temperature - np.logaddexp.reduce(logits / temperature, axis=1, keepdims=True)
        kl = (expected * (np.log(expected + 1e-300) - log_q)).sum(axis=1)
        assert kl.mean() < 1e-3
    assert verify(str(tmp_path / "cask")).problems == ()


def test_a_finished_job_tries_no_codec_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path)
    config = config_with(tmp_path, {"max_kl": 1e-3})
    precompute(config)
    before = identities_of(tmp_path / "cask")
    monkeypatch.setattr(
        "softcask.pipeline.codec_choice.worker.run_trials", lambda *_, **__: pytest.fail("a codec was tried")
    )
    assert precompute(config).tasks == 0
    assert precompute(run_config(tmp_path, teacher("a"))).tasks == 0  # nor by a run that says nothing of it
    assert identities_of(tmp_path / "cask") == before


def test_another_budget_for_a_name_with_units_is_refused_before_anything_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    precompute(config_with(tmp_path, {"max_kl": 1e-3}))
    monkeypatch.setattr(
        "softcask.pipeline.codec_choice.worker.run_trials", lambda *_, **__: pytest.fail("a codec was tried")
    )
    with pytest.raises(ManifestMismatch, match=r"codec_request.max_kl"):
        precompute(config_with(tmp_path, {"max_kl": 1e-9}))


def test_a_budget_that_cannot_be_met_leaves_no_teacher_behind(tmp_path: Path) -> None:
    write_rows(tmp_path)
    with pytest.raises(ConfigError, match="no codec keeps the logits of teacher 'a' within 16 B a row"):
        precompute(config_with(tmp_path, {"max_bytes": 16, "max_kl": 1e-15}))
    assert not (tmp_path / "cask" / "teachers").exists()


def test_a_plan_tells_of_every_codec_and_of_the_choice_and_writes_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path)
    found = plan(config_with(tmp_path, {"max_kl": 1e-3}), trials=True).teachers["a"]
    assert [trial["codec"] for trial in found.trials] == ["dense16", "dense8", "topk k=5"]
    assert found.trials[0]["row_bytes"] == 14 and found.trials[0]["kl"]["1"]["max"] < 1e-6
    assert found.reason.startswith("dense8")
    assert (found.codec, found.chosen, found.unmet) == ("dense8", "dense8", False)
    impossible = plan(config_with(tmp_path, {"max_kl": 1e-15}), trials=True).teachers["a"]
    assert "no codec keeps the logits" in impossible.reason
    assert (impossible.codec, impossible.chosen, impossible.unmet) == ("", "", True)
    named = plan(config_with(tmp_path, {"name": "dense8", "max_kl": 1e-15}), trials=True).teachers["a"]
    assert named.unmet and len(named.trials) == 3
    assert not (tmp_path / "cask").exists()


def test_a_named_topk_keeps_so_many_classes_and_watches_itself(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config_with(tmp_path, {"name": "topk", "k": 3}))
    store = open_store(str(tmp_path / "cask"))
    assert store.teacher("a").codec.configuration["head_size"] == 3
    receipt = (tmp_path / "cask/teachers/a/commits/s0000-v0000-00000000.json").read_text()
    assert '"fidelity"' in receipt
    expected = probabilities(tmp_path, 4.0)
    kept = open_store(str(tmp_path / "cask")).to_pandas("a", temperature=4.0)
    found = kept[list(store.class_names)].to_numpy()
    top = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_allclose(
        np.take_along_axis(found, top, 1), np.take_along_axis(expected, top, 1), rtol=5e-3, atol=1e-6
    )


def test_statistics_can_be_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path)
    summary = precompute(config_with(tmp_path, "dense16", stats=False))
    with torch.inference_mode():
        guesses = toy_models.net(0)(torch.from_numpy(np.load(tmp_path / "inputs.npy")) * 0.5).argmax(1)
    assert summary.teachers["a"].correct == int((guesses.numpy() == np.load(tmp_path / "labels.npy")).sum())
    assert not list((tmp_path / "cask").rglob("stats"))
    assert verify(str(tmp_path / "cask")).problems == ()


def test_a_low_rank_teacher_is_fitted_kept_in_parquet_and_read_by_a_student(tmp_path: Path) -> None:
    write_alike_rows(tmp_path, 3000)
    wide = teacher("wide", kwargs={"classes": 600, "hidden": 32}, batch_size=100)
    codec = {"name": "lowrank", "max_bytes": 64, "temperatures": [1.0, 4.0]}
    described = sections(tmp_path, wide)
    described["store"] |= {"codec": codec, "unit_rows": 1000}
    described["classes"] = {"count": 600}
    summary = precompute(RunConfig.model_validate(described))
    assert summary.teachers["wide"].codec == "lowrank" and summary.warnings == ()
    parts = sorted((tmp_path / "cask/teachers/wide/logits/s0000/v0000").iterdir())
    assert [part.suffix for part in parts] == [".parquet"] * 3
    assert sum(part.stat().st_size for part in parts) / 3000 < 80  # footers of small parts apart, 64
    store = open_store(str(tmp_path / "cask"))
    assert store.teacher("wide").codec.configuration["fit"]["white_box"] is True
    with torch.inference_mode():
        module = toy_models.net(0, classes=600, hidden=32)
        logits = module(torch.from_numpy(np.load(tmp_path / "inputs.npy")) * 0.5).double()
    log_p = torch.log_softmax(logits / 4, 1).numpy()
    kept = store.to_pandas("wide", temperature=4.0)[list(store.class_names)].to_numpy().astype(np.float64)
    kl = (np.exp(log_p) * (log_p - np.log(kept))).sum(axis=1)
    expected = {fidelity.temperature: fidelity.mean for fidelity in store.teacher("wide").expected_fidelity}
    assert 0 < kl.mean() < 3 * expected[4.0] + 1e-4
    assert verify(str(tmp_path / "cask")).problems == ()


def wide_run(folder: Path) -> RunConfig:
    write_alike_rows(folder, 600)
    wide = teacher("wide", kwargs={"classes": 600, "hidden": 32}, batch_size=100)
    described = sections(folder, wide)
    described["store"] |= {"codec": {"name": "lowrank", "max_bytes": 16}, "unit_rows": 300}
    described["classes"] = {"count": 600}
    return RunConfig.model_validate(described)


def expect(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Codecs that are said to lose so much of what they were found to lose."""
    find = driver.find_codecs

    def find_better(*args: Any) -> dict[str, Settled]:
        return {
            name: replace(
                settled,
                expected=tuple(e.model_copy(update={"mean": e.mean * share}) for e in settled.expected),
            )
            for name, settled in find(*args).items()
        }

    monkeypatch.setattr(driver, "find_codecs", find_better)


def test_rows_on_which_a_codec_does_far_worse_than_expected_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, 1 / 1000)
    with pytest.raises(CodecDrift, match=r"wide on s0000-v0000-\d+: the codec loses .* it was chosen by"):
        precompute(wide_run(tmp_path))
    assert not (tmp_path / "cask/teachers/wide/commits").exists()


def test_rows_on_which_a_codec_does_worse_are_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, 1 / 10)
    summary = precompute(wide_run(tmp_path))
    assert len(summary.warnings) == 2
    assert "wide on s0000-v0000-00000000: the codec loses" in summary.warnings[0]
    assert summary.teachers["wide"].rows == 600
