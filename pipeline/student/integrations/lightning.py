"""Stored soft targets in a LightningModule: a mixin with the training step over a loader's batches.

    class Student(SoftTargetMixin, LightningModule):
        loss_of = Distillation(hard_label_weight=0.1)

        def train_dataloader(self):
            return student.loader("out/cask", inputs=digits, temperature=4.0, batch_size=256)

This module needs no Lightning to be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softcask.pipeline.student.integrations.distributed import mean_over_all
from softcask.pipeline.student.loading.batch import StudentBatch
from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.training.mixed_labels import batch_loss

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Module
else:
    _Module = object


class SoftTargetMixin(_Module):
    """Makes a LightningModule learn from what `student.loader` gives.

    `class Student(SoftTargetMixin, LightningModule)`, in this order; `forward` takes a batch's inputs and
    gives logits `[B, C]`. Make the loader in `train_dataloader`, where it is known which process this is.
    Lightning keeps the loader's state in its checkpoints: a training goes on in the middle of an epoch.

    Attributes:
        loss_of: What is minimised.
    """

    loss_of: LossOptions

    def training_step(self, batch: StudentBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a batch; logged as `train_loss`."""
        loss = batch_loss(self.loss_of, self(batch.inputs), batch)
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return mean_over_all(loss, len(batch))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A loader's batch moves itself; any other is Lightning's affair."""
        if isinstance(batch, StudentBatch):
            return batch.to(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
