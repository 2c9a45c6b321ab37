from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.student.losses.contract import (
    TEMPERATURES,
    Array,
    LossContract,
    cross_entropies,
    softmax,
)

from softcask.pipeline.student.losses.distillation import Distillation


class TestDistillation(LossContract):
    """T^2 KL(p || q), nine parts to one of cross-entropy."""

    kind = "distillation"
    weight, smoothing = 0.1, 0.0

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        p_BC, q_BC = softmax(teacher_BC, temperature), softmax(student_BC, temperature)
        soft_B = temperature**2 * (p_BC * np.log(p_BC / q_BC)).sum(axis=1)
        return (1 - self.weight) * soft_B + self.weight * cross_entropies(
            student_BC, labels_B, self.smoothing
        )


class TestDistillationOfSoftTargetsAlone(TestDistillation):
    """The same without labels."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.0}
    weight = 0.0


class TestDistillationBesideSmoothedLabels(TestDistillation):
    """The same with labels that share a tenth with all classes."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.4, "label_smoothing": 0.1}
    weight, smoothing = 0.4, 0.1


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_of_a_row_is_t_times_the_difference_of_probabilities(temperature: float) -> None:
    random = np.random.default_rng(7)
    z_BC, v_BC = random.normal(0, 4, (8, 10)), random.normal(3, 8, (8, 10))
    p_BC = softmax(v_BC, temperature)
    logits_BC = torch.tensor(z_BC, requires_grad=True)
    loss = Distillation(hard_label_weight=0.0)
    loss.compute(logits_BC, torch.from_numpy(p_BC), torch.full((8,), -1), temperature).backward()  # type: ignore[no-untyped-call]
    assert logits_BC.grad is not None
    expected_BC = temperature * (softmax(z_BC, temperature) - p_BC) / 8
    np.testing.assert_allclose(logits_BC.grad.numpy(), expected_BC, atol=1e-12)


def test_a_class_the_teacher_gives_no_mass_leaves_it_finite() -> None:
    z_BC = np.random.default_rng(8).normal(0, 4, (8, 10))
    p_BC = np.tile(np.eye(10)[2], (8, 1))
    value = Distillation(hard_label_weight=0.0).compute(
        torch.from_numpy(z_BC), torch.from_numpy(p_BC), torch.full((8,), -1), 1
    )
    assert value.item() == pytest.approx(-np.log(softmax(z_BC)[:, 2]).mean(), rel=1e-9)
