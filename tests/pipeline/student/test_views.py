"""A student's batches in views: what its teacher saw, epoch by epoch, with labels that mix as the rows do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.pipeline.precompute.test_views import JITTER, config, net_logits, recorded, recording, section
from tests.worlds import ROWS, TESTS, write_rows

from softcask import student
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.student.config import StudentConfig
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.training.loop import train_student
from softcask.pipeline.student.training.mixed_labels import batch_loss
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.storage_schemas.errors import (
    CheckpointError,
    ConfigError,
    ManifestMismatch,
    StoreError,
    TransferSetError,
)


def inputs(folder: Path) -> ArraysOptions:
    return ArraysOptions(
        inputs=str(folder / "inputs.npy"), labels=str(folder / "labels.npy"), max_quarantined=0.1
    )


def batches(folder: Path, **options: Any) -> list[student.StudentBatch]:
    options = {"inputs": inputs(folder), "batch_size": 32, "temperature": 2.0, **options}
    return list(student.loader(str(folder / "cask"), **options))


def rows_of(batch: student.StudentBatch) -> list[bytes]:
    return [row.numpy().tobytes() for row in batch.inputs]


def test_batches_are_of_the_rows_that_the_teacher_saw_and_of_what_it_said_of_them(tmp_path: Path) -> None:
    write_rows(tmp_path, unreadable=(3, 77))
    precompute(config(tmp_path, recording(tmp_path), views=section(2)))
    shown = batches(tmp_path, epochs=3)
    assert [batch.view for batch in shown] == [0] * 8 + [1] * 8 + [2] * 8
    assert {row for batch in shown for row in rows_of(batch)} == set(recorded(tmp_path / "seen"))
    for batch in shown:
        logits = torch.from_numpy(net_logits(batch.inputs.numpy())).double()
        assert isinstance(batch.targets, torch.Tensor)
        torch.testing.assert_close(batch.targets.double(), (logits / 2).softmax(-1), atol=2e-3, rtol=0)
        assert (batch.share_B is None) == (batch.view == 0)


@pytest.mark.parametrize(
    "options", [{"num_workers": 2}, {"keep_bytes": 0}, {"num_workers": 2, "keep_bytes": 0}]
)
def test_workers_and_what_is_kept_change_no_bit(tmp_path: Path, options: dict[str, int]) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    for one, other in zip(batches(tmp_path, epochs=4), batches(tmp_path, epochs=4, **options), strict=True):
        assert one.view == other.view
        torch.testing.assert_close(one.inputs, other.inputs, atol=0, rtol=0)
        torch.testing.assert_close(one.targets, other.targets, atol=0, rtol=0)
        assert (one.share_B is None) == (other.share_B is None)
        if one.share_B is not None and other.share_B is not None:
            assert torch.equal(one.share_B, other.share_B)


def test_a_resumed_epoch_is_in_the_view_that_it_was_in(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    whole = student.loader(str(tmp_path / "cask"), inputs=inputs(tmp_path), batch_size=50, views=[2, 1])
    list(whole)
    first = iter(whole)
    batch = next(first)
    assert batch.view == 1
    other = student.loader(str(tmp_path / "cask"), inputs=inputs(tmp_path), batch_size=50, views=[2, 1])
    other.load_state_dict(whole.state_dict())
    expected, found = next(first), next(iter(other))
    assert found.view == 1 and torch.equal(found.inputs, expected.inputs)
    turned = student.loader(str(tmp_path / "cask"), inputs=inputs(tmp_path), batch_size=50, views=[1, 2])
    with pytest.raises(CheckpointError, match="views"):
        turned.load_state_dict(whole.state_dict())


def test_partners_come_from_all_inputs_though_some_are_selected(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    chosen = batches(tmp_path, views=[1], select=student.Selection(classes=(2,)))
    everything = {
        int(row): batch.inputs[at]
        for batch in batches(tmp_path, views=[1])
        for at, row in enumerate(batch.rows_B)
    }
    assert 0 < sum(map(len, chosen)) < ROWS
    for batch in chosen:
        assert (batch.labels_B == 2).all()
        assert batch.partner_labels_B is not None and (batch.partner_labels_B != 2).any()
        for at, row in enumerate(batch.rows_B):
            assert torch.equal(batch.inputs[at], everything[int(row)])


def test_labels_mix_as_rows_do(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1, {"kind": "mixup"})))
    (batch,) = batches(tmp_path, views=[1], batch_size=ROWS)
    labels = np.load(tmp_path / "labels.npy")
    rows = np.load(tmp_path / "inputs.npy")[batch.positions_B.numpy()]
    assert batch.share_B is not None and batch.partner_labels_B is not None
    np.testing.assert_array_equal(batch.labels_B, labels[batch.positions_B.numpy()])
    share = batch.share_B.numpy().astype(np.float64)[:, None, None]
    # What is left when the row's share is taken away is the partner: a row on disk, by its first number.
    partner = (batch.inputs.numpy() - share * rows) / (1 - share)
    clear = batch.share_B.numpy() < 0.9
    numbers = np.rint(partner[clear, 0, 0]).astype(int)
    np.testing.assert_allclose(partner[clear, 0, 0], numbers, atol=1e-2)
    np.testing.assert_array_equal(batch.partner_labels_B.numpy()[clear], labels[numbers])

    logits = torch.randn(ROWS, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = batch_loss(Distillation(hard_label_weight=1.0), logits, batch)
    log_q = logits.log_softmax(-1).numpy()
    share = batch.share_B.numpy().astype(np.float64)
    own, other = (log_q[np.arange(ROWS), at.numpy()] for at in (batch.labels_B, batch.partner_labels_B))
    assert found.item() == pytest.approx(-(share * own + (1 - share) * other).mean(), rel=1e-6)
    soft = batch_loss(Distillation(hard_label_weight=0.0), logits, batch)
    assert isinstance(batch.targets, torch.Tensor)
    p, q = batch.targets.double(), (logits / 2).log_softmax(-1)
    assert soft.item() == pytest.approx(4 * (p * (p.log() - q)).sum(-1).mean().item(), rel=1e-5)


def test_code_of_ones_own_is_stated_by_the_student(tmp_path: Path) -> None:
    from softcask.pipeline.factories import add_to_path

    add_to_path([str(TESTS)])
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1, JITTER)))
    with pytest.raises(StoreError, match=r"Write the section \[views\]"):
        batches(tmp_path)
    stated = section(1, JITTER)  # as it stands in the run's file
    assert {batch.view for batch in batches(tmp_path, augmentation=stated, epochs=2)} == {0, 1}
    with pytest.raises(ManifestMismatch, match="seed: found 4, expected 3"):
        batches(tmp_path, augmentation={**stated, "seed": 4})
    with pytest.raises(ConfigError, match="no valid section"):
        batches(tmp_path, augmentation={"steps": []})
    assert [batch.view for batch in batches(tmp_path, views=[0])] == [0] * 8


def test_a_dataset_of_ones_own_is_replayed_where_its_inputs_are_arrays(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(1)))
    rows = torch.from_numpy(np.load(tmp_path / "inputs.npy"))
    ids = [f"inputs-{row:08d}" for row in range(ROWS)]
    plain = torch.utils.data.TensorDataset(rows)
    own = batches(
        tmp_path, inputs=plain, ids=ids, views=[1], collate=lambda items: torch.stack([x for (x,) in items])
    )
    for one, other in zip(own, batches(tmp_path, views=[1]), strict=True):
        assert torch.equal(one.inputs, other.inputs)
    with pytest.raises(TransferSetError, match="inputs that are one array, and these are a list"):
        batches(tmp_path, inputs=plain, ids=ids, views=[1])


def student_file(folder: Path, **changes: Any) -> StudentConfig:
    return StudentConfig.model_validate(
        {
            "store": str(folder / "cask"),
            "output": str(folder / "student"),
            "python_path": [str(TESTS)],
            "transfer_set": inputs(folder).model_dump(mode="json"),
            "model": {"factory": "toy_models:net"},
            "training": {"epochs": 3, "batch_size": 64, "dtype": "float32", "device": "cpu"},
            **changes,
        }
    )


def test_a_student_trains_on_views_and_another_choice_of_them_is_another_training(tmp_path: Path) -> None:
    write_rows(tmp_path)
    precompute(config(tmp_path, views=section(2)))
    result = train_student(student_file(tmp_path))
    assert result.teacher_passes == 0 and result.epochs == 3
    with pytest.raises(CheckpointError, match="views"):
        train_student(student_file(tmp_path, targets={"views": [1, 2]}))
    with pytest.raises(StoreError, match="no view 9"):
        train_student(student_file(tmp_path, targets={"views": [9]}, output=str(tmp_path / "other")))
