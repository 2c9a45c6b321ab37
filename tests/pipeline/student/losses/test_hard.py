from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.student.losses.contract import Array, LossContract, cross_entropies, softmax

from softcask.pipeline.student.losses.hard import HardLabels, label_cross_entropy


class TestHardLabels(LossContract):
    """Cross-entropy, a mean over rows that have a label."""

    kind = "hard"

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        return cross_entropies(student_BC, labels_B, self.loss().model_dump()["label_smoothing"])

    def counted(self, labels_B: NDArray[np.int64]) -> int:
        return int((labels_B >= 0).sum())


class TestSmoothedLabels(TestHardLabels):
    """The same of labels that share a fifth with all classes."""

    options: ClassVar[dict[str, Any]] = {"label_smoothing": 0.2}


def test_its_gradient_is_the_difference_of_probabilities_and_label() -> None:
    z_BC = np.random.default_rng(5).normal(0, 4, (6, 4))
    labels_B = np.array([0, -1, 3, 2, -1, 1])
    logits_BC = torch.tensor(z_BC, requires_grad=True)
    HardLabels().compute(logits_BC, None, torch.from_numpy(labels_B), 20).backward()  # type: ignore[no-untyped-call]
    labelled_B1 = (labels_B >= 0)[:, None]
    expected_BC = (softmax(z_BC) - np.eye(4)[labels_B.clip(0)]) * labelled_B1 / 4
    assert logits_BC.grad is not None
    np.testing.assert_allclose(logits_BC.grad.numpy(), expected_BC, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropies_are_torchs(smoothing: float) -> None:
    logits_BC = torch.from_numpy(np.random.default_rng(6).normal(0, 3, (9, 7)))
    labels_B = torch.tensor([0, 3, -1, 6, 2, -1, 5, 5, 1])
    expected_B = torch.nn.functional.cross_entropy(
        logits_BC, labels_B, ignore_index=-1, label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(label_cross_entropy(logits_BC, labels_B, smoothing), expected_B)
