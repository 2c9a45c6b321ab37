from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.pipeline.student.losses.contract import Array, LossContract, cross_entropies, softmax

from softcask.pipeline.student.losses.jensen_shannon import JensenShannon


def kl(p_BC: Array, q_BC: Array) -> Array:
    return np.asarray((p_BC * np.log(p_BC / q_BC)).sum(axis=1))


class TestJensenShannon(LossContract):
    """Half KL(p || m) and half KL(q || m), m between p and q."""

    kind = "jensen_shannon"
    beta = 0.5

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        p_BC, q_BC = softmax(teacher_BC, temperature), softmax(student_BC, temperature)
        m_BC = self.beta * p_BC + (1 - self.beta) * q_BC
        soft_B = temperature**2 * (self.beta * kl(p_BC, m_BC) + (1 - self.beta) * kl(q_BC, m_BC))
        return 0.9 * soft_B + 0.1 * cross_entropies(student_BC, labels_B)


class TestJensenShannonNearTheTeacher(TestJensenShannon):
    """The same with m nine parts teacher."""

    options: ClassVar[dict[str, Any]] = {"beta": 0.9}
    beta = 0.9


def soft(beta: float, z_BC: Array, p_BC: Array, temperature: float) -> float:
    loss = JensenShannon(beta=beta, hard_label_weight=0.0)
    none_B = torch.full((len(z_BC),), -1)
    return loss.compute(torch.from_numpy(z_BC), torch.from_numpy(p_BC), none_B, temperature).item()


def test_divided_by_beta_it_tends_to_forward_kl_and_at_the_other_end_to_reverse() -> None:
    random = np.random.default_rng(7)
    z_BC, v_BC = random.normal(0, 2, (8, 10)), random.normal(0, 2, (8, 10))
    p_BC, q_BC = softmax(v_BC, 2), softmax(z_BC, 2)
    assert soft(1e-6, z_BC, p_BC, 2) / 1e-6 == pytest.approx(4 * kl(p_BC, q_BC).mean(), rel=1e-3)
    assert soft(1 - 1e-6, z_BC, p_BC, 2) / 1e-6 == pytest.approx(4 * kl(q_BC, p_BC).mean(), rel=1e-3)


def test_where_teacher_and_student_share_no_class_it_is_the_entropy_of_beta_and_no_more() -> None:
    z_BC = np.where(np.arange(4) == 0, 0.0, -1e4)[None]
    p_BC = np.eye(4)[[2]]
    entropy = -0.3 * np.log(0.3) - 0.7 * np.log(0.7)
    assert soft(0.3, z_BC, p_BC, 1) == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5, float("nan")])
def test_beta_is_strictly_between_0_and_1(beta: float) -> None:
    with pytest.raises(ValidationError, match="beta"):
        JensenShannon(beta=beta)
