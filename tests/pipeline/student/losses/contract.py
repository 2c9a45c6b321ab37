"""What every loss must do; its own test compares it with its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.losses.registry import LOSSES

TEMPERATURE = 3.0
B, C = 16, 10


class LossContract:
    """Subclass it and name the loss's `kind`."""

    kind: str

    @pytest.fixture
    def loss(self) -> LossOptions:
        """The loss with its defaults."""
        return LOSSES.get(self.kind)(kind=self.kind)

    @pytest.fixture
    def logits_BC(self) -> torch.Tensor:
        """A student's logits, float64."""
        return torch.from_numpy(np.random.default_rng(1).normal(0, 4, (B, C)))

    @pytest.fixture
    def targets_BC(self, loss: LossOptions) -> torch.Tensor | None:
        """What the loss needs of the teachers."""
        teacher_BC = torch.from_numpy(np.random.default_rng(2).normal(3, 8, (B, C)))
        tempered_BC = (teacher_BC / TEMPERATURE).softmax(-1)
        return {"logits": teacher_BC, "probabilities": tempered_BC, "labels": None}[loss.needs]

    @pytest.fixture
    def labels_B(self) -> torch.Tensor:
        """Labels; every third row has none."""
        labels = np.random.default_rng(3).integers(0, C, B)
        return torch.from_numpy(np.where(np.arange(B) % 3 == 0, -1, labels))

    def test_its_gradient_agrees_with_finite_differences(
        self,
        loss: LossOptions,
        logits_BC: torch.Tensor,
        targets_BC: torch.Tensor | None,
        labels_B: torch.Tensor,
    ) -> None:
        def value(logits: torch.Tensor) -> torch.Tensor:
            return loss.compute(logits, targets_BC, labels_B, TEMPERATURE)

        assert torch.autograd.gradcheck(value, logits_BC.requires_grad_())  # type: ignore[no-untyped-call]

    def test_logits_of_16_bits_are_widened_first(
        self,
        loss: LossOptions,
        logits_BC: torch.Tensor,
        targets_BC: torch.Tensor | None,
        labels_B: torch.Tensor,
    ) -> None:
        targets = None if targets_BC is None else targets_BC.float()
        narrow = logits_BC.bfloat16()
        value = loss.compute(narrow, targets, labels_B, TEMPERATURE)
        assert value.dtype == torch.float32
        assert value.item() == loss.compute(narrow.float(), targets, labels_B, TEMPERATURE).item()

    def test_a_batch_without_labels_is_finite(
        self, loss: LossOptions, logits_BC: torch.Tensor, targets_BC: torch.Tensor | None
    ) -> None:
        value = loss.compute(logits_BC.requires_grad_(), targets_BC, torch.full((B,), -1), TEMPERATURE)
        value.backward()
        assert value.isfinite()
        assert logits_BC.grad is not None
        assert logits_BC.grad.isfinite().all()
