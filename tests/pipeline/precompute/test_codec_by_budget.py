"""A codec chosen by budget: what is picked, pinned, refused, and left alone when the job runs again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import toy_models
from tests.worlds import identities_of, run_config, sections, teacher, write_rows

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.planning import plan
from softcask.pipeline.store.reader import open_store
from softcask.pipeline.store.verify import verify
from softcask.storage_schemas.errors import ConfigError, ManifestMismatch


def config_with(folder: Path, codec: Any, *teachers: dict[str, Any], **store: Any) -> RunConfig:
    described = sections(folder, *(teachers or (teacher("a"),)))
    described["store"] |= {"codec": codec, **store}
    return RunConfig.model_validate(described)


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
    impossible = plan(config_with(tmp_path, {"max_kl": 1e-15}), trials=True).teachers["a"]
    assert "no codec keeps the logits" in impossible.reason
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
