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

from softcask.pipeline.student.losses.reverse_kl import ReverseKL


class TestReverseKL(LossContract):
    """T^2 KL(q || p), nine parts to one of cross-entropy."""

    kind = "reverse_kl"

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        p_BC, q_BC = softmax(teacher_BC, temperature), softmax(student_BC, temperature)
        soft_B = temperature**2 * (q_BC * np.log(q_BC / p_BC)).sum(axis=1)
        return 0.9 * soft_B + 0.1 * cross_entropies(student_BC, labels_B)


class TestReverseKLAlone(TestReverseKL):
    """The same without labels."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.0}

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        return super().row_losses(student_BC, teacher_BC, np.full(len(labels_B), -1), temperature) / 0.9


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_its_gradient_is_the_students_excess_where_the_student_is(temperature: float) -> None:
    random = np.random.default_rng(7)
    z_BC, v_BC = random.normal(0, 4, (8, 10)), random.normal(3, 4, (8, 10))
    p_BC, q_BC = softmax(v_BC, temperature), softmax(z_BC, temperature)
    logits_BC = torch.tensor(z_BC, requires_grad=True)
    loss = ReverseKL(hard_label_weight=0.0)
    loss.compute(logits_BC, torch.from_numpy(p_BC), torch.full((8,), -1), temperature).backward()  # type: ignore[no-untyped-call]
    excess_BC = np.log(q_BC / p_BC)
    mean_B1 = (q_BC * excess_BC).sum(axis=1, keepdims=True)
    assert logits_BC.grad is not None
    np.testing.assert_allclose(
        logits_BC.grad.numpy(), temperature * q_BC * (excess_BC - mean_B1) / 8, atol=1e-12
    )


def test_a_class_the_teacher_gives_no_mass_costs_what_float32s_least_number_would() -> None:
    z_BC = np.random.default_rng(8).normal(0, 4, (8, 10))
    p_BC = np.tile(np.eye(10)[2], (8, 1))
    logits_BC = torch.tensor(z_BC, dtype=torch.float32, requires_grad=True)
    value = ReverseKL(hard_label_weight=0.0).compute(
        logits_BC, torch.tensor(p_BC, dtype=torch.float32), torch.full((8,), -1), 1
    )
    q_BC = softmax(z_BC)
    expected_B = (q_BC * np.log(q_BC / np.maximum(p_BC, np.finfo(np.float32).tiny))).sum(axis=1)
    assert value.item() == pytest.approx(expected_B.mean(), rel=1e-5)
    value.backward()  # type: ignore[no-untyped-call]
    assert logits_BC.grad is not None
    assert logits_BC.grad.isfinite().all()
