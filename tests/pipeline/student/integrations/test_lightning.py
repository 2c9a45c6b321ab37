"""A LightningModule over a loader: the steps of a plain loop, each row once, resumed within an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mended_torchvision import mend
from torch.utils.data import DataLoader

from softcask import student
from softcask.pipeline.student.integrations.lightning import SoftTargetMixin
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.transfer_sets.arrays import ArraysOptions

mend()

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402  # it imports torchvision

BATCH = 32


def loader_of(world: Any) -> student.StudentLoader:
    source = ArraysOptions(kind="arrays", inputs=str(world.folder / "inputs.npy"), id_prefix="row")
    return student.loader(world.store, inputs=source, temperature=4.0, batch_size=BATCH, seed=3)


class Student(SoftTargetMixin, LightningModule):
    loss_of = Distillation(hard_label_weight=0.25)

    def __init__(self, world: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(12, 5)
        self.world = world
        self.seen: list[list[int]] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(inputs)
        return logits

    def training_step(self, batch: student.StudentBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.rows_B.tolist())
        return super().training_step(batch, batch_idx)

    def train_dataloader(self) -> student.StudentLoader:
        return loader_of(self.world)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Keep(Callback):
    """Keeps a checkpoint after a step."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *more: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def trainer(folder: Path, epochs: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )


def test_lightning_takes_the_steps_of_a_plain_loop(world: Any, tmp_path: Path) -> None:
    model = Student(world)
    trainer(tmp_path, 3).fit(model)
    plain = Student(world)
    optimiser, loader = plain.configure_optimizers(), loader_of(world)
    orders = []
    for _ in range(3):
        for batch in loader:
            orders.append(batch.rows_B.tolist())
            logits = plain(batch.inputs)
            loss = plain.loss_of.compute(logits, batch.targets, batch.labels_B, batch.temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert model.seen == orders
    assert torch.equal(model.net.weight, plain.net.weight)


def test_each_row_comes_once_an_epoch_and_each_epoch_has_its_own_order(world: Any, tmp_path: Path) -> None:
    model = Student(world)
    trainer(tmp_path, 2).fit(model)
    epochs = [[row for batch in seen for row in batch] for seen in (model.seen[:7], model.seen[7:])]
    assert [sorted(each) for each in epochs] == [list(range(200))] * 2
    assert epochs[0] != epochs[1]


# Seven batches an epoch: in the first epoch, at its end, in the second.
@pytest.mark.parametrize("step", [3, 7, 10])
def test_a_training_goes_on_where_its_checkpoint_was_made(world: Any, tmp_path: Path, step: int) -> None:
    whole = Student(world)
    trainer(tmp_path, 3, Keep(step, tmp_path / "kept.ckpt")).fit(whole)
    rest = Student(world)
    trainer(tmp_path, 3).fit(rest, ckpt_path=tmp_path / "kept.ckpt")
    assert rest.seen == whole.seen[step:]
    assert torch.equal(rest.net.weight, whole.net.weight)


def test_the_loss_is_logged_and_other_batches_are_lightnings_affair(world: Any, tmp_path: Path) -> None:
    class Judged(Student):
        def val_dataloader(self) -> Any:
            return DataLoader(torch.zeros(8, 12), batch_size=4)

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.log("rows", float(len(batch)))

    training = trainer(tmp_path, 1)
    training.fit(Judged(world))
    assert training.callback_metrics["rows"] == 4
    assert 0 < training.callback_metrics["train_loss"] < 100
