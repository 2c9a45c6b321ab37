"""Hard labels alone: what a student learns without a teacher, and the baseline of every distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from softcask.pipeline.student.losses.base import LossOptions, Needs, widened

if TYPE_CHECKING:
    from torch import Tensor


def label_cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """`-sum_i y_i log softmax(logits)_i` of each row, `[B]`; 0 for a row without label (-1).

    Args:
        logits_BC: Logits.
        labels_B: Class indices.
        smoothing: s, the share of y that all C classes have alike: y is `1 - s + s / C` at the label and
            `s / C` elsewhere (arXiv 1512.00567, section 7).
    """
    log_q_BC = logits_BC.log_softmax(-1)
    picked_B = log_q_BC.gather(-1, labels_B.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    if smoothing:
        picked_B = (1 - smoothing) * picked_B + smoothing * log_q_BC.mean(-1)
    return -picked_B * (labels_B >= 0)


class HardLabels(LossOptions):
    """Cross-entropy with the labels, a mean over labelled rows; the others are ignored.

    Attributes:
        label_smoothing: Share of the label that all classes have alike.
    """

    needs: ClassVar[Needs] = "labels"
    kind: Literal["hard"] = "hard"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    def compute(
        self,
        logits_BC: Tensor,
        targets: Any,
        labels_B: Tensor,
        temperature: float,
        *,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """`mean over labelled rows of weight * CE(label, softmax(z))`; 0 where no row has a label."""
        labelled = (labels_B >= 0).sum().clamp_min(1)
        losses_B = label_cross_entropy(widened(logits_BC), labels_B, self.label_smoothing)
        return (losses_B if weights_B is None else losses_B * weights_B.to(losses_B.dtype)).sum() / labelled
