"""Soft targets at T, mixed with hard labels: section 2 of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from softcask.pipeline.student.losses.base import LossOptions, Needs, widened
from softcask.pipeline.student.losses.hard import label_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class Distillation(LossOptions):
    """`(1 - w) T^2 KL(p_T || q_T) + w CE(label, q_1)`, a mean over rows.

    T^2 keeps the soft term's gradients at the size of the hard term's, whatever T is. A row without label has
    the soft term alone.

    Attributes:
        hard_label_weight: w, 0 to 1; the paper found a considerably lower weight than the soft term's best.
    """

    needs: ClassVar[Needs] = "probabilities"
    kind: Literal["distillation"] = "distillation"
    hard_label_weight: float = Field(default=0.1, ge=0, le=1)

    def compute(
        self, logits_BC: Tensor, targets_BC: Tensor | None, labels_B: Tensor, temperature: float
    ) -> Tensor:
        """The mixed loss; its gradient at an unlabelled row's logits is `(1 - w) T (q_T - p_T) / B`."""
        if targets_BC is None:
            raise TypeError("distillation needs soft targets [B, C], got None")
        wide_BC = widened(logits_BC)
        log_q_BC = (wide_BC / temperature).log_softmax(-1)
        soft_B = (targets_BC.xlogy(targets_BC) - targets_BC * log_q_BC).sum(-1) * temperature**2
        hard_B = label_cross_entropy(wide_BC, labels_B)
        weight = self.hard_label_weight
        return ((1 - weight) * soft_B + weight * hard_B).mean()
