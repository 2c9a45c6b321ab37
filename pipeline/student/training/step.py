"""One step of training, and the forward pass alone, as a student's file describes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softcask.pipeline.preprocessing import PreprocessingOptions, to_tensor
from softcask.pipeline.student.loading.batch import StudentBatch
from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.training.mixed_labels import batch_loss
from softcask.pipeline.student.training.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentStep:
    """What happens to a batch.

    Attributes:
        preprocessing: From the transfer set's rows to the model's.
        loss: What is minimised.
        device: Where the model stands.
    """

    preprocessing: PreprocessingOptions
    loss: LossOptions
    device: torch.device

    def train(
        self,
        model: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        batch: StudentBatch,
        precision: Precision,
    ) -> torch.Tensor:
        """Move the model by one batch; its loss before that, a scalar on the device."""
        batch = batch.to(self.device)
        inputs = batch.inputs if isinstance(batch.inputs, torch.Tensor) else to_tensor(batch.inputs)
        inputs = self.preprocessing.apply(inputs)
        with precision.autocast():
            logits_BC = model(inputs)
        loss = batch_loss(self.loss, logits_BC, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    def logits(self, model: torch.nn.Module, inputs_B: torch.Tensor) -> torch.Tensor:
        """Logits `[B, C]` in float32, whatever it is trained in, so that test errors can be counted again."""
        with torch.no_grad():
            logits: torch.Tensor = model(self.preprocessing.apply(inputs_B.to(self.device)))
        return logits
