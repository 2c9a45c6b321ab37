"""A checkpoint is one whole file or none, and it holds no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from softcask.pipeline.student.training import checkpoints
from softcask.pipeline.student.training.checkpoints import (
    Kept,
    TrainingState,
    check_identity,
    read_state,
    restore,
    save_checkpoint,
    save_model,
    save_tensors,
    save_text,
)
from softcask.storage_schemas.errors import CheckpointError, StudentError

STATE = TrainingState(
    identity={"training": {"seed": 1}, "data": "sha256:1"},
    epoch=3,
    step=40,
    position={"epoch": 3, "rows": 12},
    dtype="float32",
    loss=0.5,
    errors_by_epoch=(9, 7, 5),
    seconds=1.5,
    cpu_seconds=2.5,
)
KEPT = Kept(
    losses=torch.tensor([0.75, 0.1], dtype=torch.float64), random={"cpu": torch.arange(9, dtype=torch.uint8)}
)


def trained() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


def as_metadata(document: dict[str, object]) -> dict[str, str]:
    return {"softcask": json.dumps(document)}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    model, optimiser = trained()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, model, optimiser, STATE, KEPT)
    assert read_state(path) == STATE

    torch.manual_seed(9)
    other = torch.nn.Linear(3, 2)
    fresh = torch.optim.Adam(other.parameters())
    kept = restore(path, other, fresh)
    assert torch.equal(kept.losses, KEPT.losses)
    assert torch.equal(kept.random["cpu"], KEPT.random["cpu"])
    assert torch.equal(other.weight, model.weight)
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)


def test_who_may_read_other_new_files_may_read_the_model(tmp_path: Path) -> None:
    model, optimiser = trained()
    (other := tmp_path / "other").touch()
    save_model(tmp_path / "model.safetensors", model)
    save_checkpoint(tmp_path / "checkpoint.safetensors", model, optimiser, STATE, KEPT)
    for name in ("model", "checkpoint"):
        assert (tmp_path / f"{name}.safetensors").stat().st_mode == other.stat().st_mode


def test_the_model_file_holds_the_state_dict_and_nothing_else(tmp_path: Path) -> None:
    model, _ = trained()
    save_model(tmp_path / "model.safetensors", model)
    kept = load_file(tmp_path / "model.safetensors")
    assert kept.keys() == {"weight", "bias"}
    assert torch.equal(kept["weight"], model.weight)


def test_no_checkpoint_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "checkpoint.safetensors") is None


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimiser = trained()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, model, optimiser, STATE, KEPT)
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        Path(str(arguments[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StudentError, match="No space left on device"):
        save_checkpoint(path, model, optimiser, STATE, KEPT)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    save_text(tmp_path / "result.json", "one")
    save_text(tmp_path / "result.json", "two")
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("result.json", "two")]
    with pytest.raises(StudentError, match="cannot write"):
        save_text(tmp_path / "missing" / "result.json", "three")


def test_every_difference_of_identity_is_listed(tmp_path: Path) -> None:
    check_identity(tmp_path, STATE, dict(STATE.identity))
    with pytest.raises(CheckpointError) as refused:
        check_identity(tmp_path, STATE, {"training": {"seed": 2}, "data": "sha256:2"})
    assert "training.seed: found 2, expected 1" in str(refused.value)
    assert 'data: found "sha256:2", expected "sha256:1"' in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint of softcask or is damaged"):
        read_state(path)


def test_a_checkpoint_of_a_newer_softcask_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(checkpoints, "_FORMAT", 3)
    save_checkpoint(path, *trained(), STATE, KEPT)
    monkeypatch.setattr(checkpoints, "_FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 3, this softcask reads 2"):
        read_state(path)


def test_a_checkpoint_of_the_first_format_says_epochs_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    state = {"identity": {}, "dtype": "float32", "epoch": 2, "loss": 0.5, "errors_by_epoch": [None, 3]}
    document = {"format": 1, "state": state, "optimiser": {}}
    save_tensors(path, {"model/weight": torch.ones(2, 3), "model/bias": torch.ones(2)}, as_metadata(document))
    found = read_state(path)
    assert found is not None
    assert (found.epoch, found.step, found.position, found.errors_by_epoch) == (2, None, None, (None, 3))
    model, _ = trained()
    kept = restore(path, model, torch.optim.SGD(model.parameters()))
    assert torch.equal(model.weight, torch.ones(2, 3))
    assert (len(kept.losses), kept.random) == (0, {})


def test_state_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    class Odd(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    with pytest.raises(StudentError, match=r"keeps '_extra_state' as a dict"):
        save_model(tmp_path / "model.safetensors", Odd(3, 2))
