from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.student.losses.contract import Array, LossContract, cross_entropies, softmax


def centred(z_BC: Array) -> Array:
    return np.asarray(z_BC - z_BC.mean(axis=1, keepdims=True))


class TestLogitMatching(LossContract):
    """Half the mean square of differences between centred logits."""

    kind = "logit_matching"

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        return np.asarray((centred(student_BC) - centred(teacher_BC)) ** 2).mean(axis=1) / 2

    def test_a_constant_on_a_row_changes_nothing(self, student_BC: Array, teacher_BC: Array) -> None:
        labels_B = np.full(self.rows, -1)
        plain = self.run(student_BC, teacher_BC, labels_B, 1)
        shifted = self.run(student_BC + 7, teacher_BC - 3, labels_B, 1)
        assert shifted[0] == pytest.approx(plain[0], rel=1e-5)
        np.testing.assert_allclose(shifted[1], plain[1], atol=1e-6)


class TestRawLogitMatching(LossContract):
    """The same of logits as they are."""

    kind = "logit_matching"
    options: ClassVar[dict[str, Any]] = {"zero_mean": False}

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        return np.asarray((student_BC - teacher_BC) ** 2).mean(axis=1) / 2


class TestLogitMatchingBesideLabels(TestLogitMatching):
    """A quarter of it cross-entropy."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.25, "label_smoothing": 0.1}

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        matched_B = super().row_losses(student_BC, teacher_BC, labels_B, temperature)
        return 0.75 * matched_B + 0.25 * cross_entropies(student_BC, labels_B, 0.1)


class _High(LossContract):
    """A loss of probabilities, in float64 at a T at which all its terms but the quadratic one are gone."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.0}
    temperature = 1e4


@pytest.mark.parametrize(
    ("kind", "share"), [("distillation", 1.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.25)]
)
def test_divergences_at_a_high_temperature_tend_to_logit_matching(kind: str, share: float) -> None:
    """Section 2.1 of the paper: `T^2 KL -> sum (z - v)^2 / (2 C)`, of rows of mean 0."""
    import torch

    random = np.random.default_rng(11)
    z_BC, v_BC = random.normal(0, 4, (16, 10)), random.normal(3, 8, (16, 10))
    high = _High()
    high.kind = kind
    value, gradient_BC = high.run(z_BC, v_BC, np.full(16, -1), high.temperature, dtype=torch.float64)
    difference_BC = centred(z_BC) - centred(v_BC)
    limit_BC = share * difference_BC / (16 * 10)
    assert value == pytest.approx(share * (difference_BC**2).mean() / 2, rel=5e-3)
    np.testing.assert_allclose(gradient_BC, limit_BC, rtol=0, atol=np.abs(limit_BC).max() * 5e-3)
    assert not np.allclose(softmax(z_BC), softmax(v_BC), atol=0.1)
