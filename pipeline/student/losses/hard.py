"""Hard labels alone: what a student learns without a teacher, and the baseline of every distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from softcask.pipeline.student.losses.base import LossOptions, Needs, widened

if TYPE_CHECKING:
    from torch import Tensor


def label_cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """`-log softmax(logits)[label]` of each row, `[B]`; 0 for a row without label (-1)."""
    picked_B = logits_BC.log_softmax(-1).gather(-1, labels_B.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return -picked_B * (labels_B >= 0)


class HardLabels(LossOptions):
    """Cross-entropy with the labels, a mean over labelled rows; the others are ignored."""

    needs: ClassVar[Needs] = "labels"
    kind: Literal["hard"] = "hard"

    def compute(
        self, logits_BC: Tensor, targets_BC: Tensor | None, labels_B: Tensor, temperature: float
    ) -> Tensor:
        """`mean over labelled rows of CE(label, softmax(z))`; 0 where no row has a label."""
        labelled = (labels_B >= 0).sum().clamp_min(1)
        return label_cross_entropy(widened(logits_BC), labels_B).sum() / labelled
