"""Soft targets at T, mixed with hard labels: section 2 of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softcask.pipeline.student.losses.base import Needs, tensor_of, widened
from softcask.pipeline.student.losses.mixed import MixedLoss

if TYPE_CHECKING:
    from torch import Tensor


class Distillation(MixedLoss):
    """`(1 - w) T^2 KL(p_T || q_T) + w CE(label, q_1)`, a mean over rows.

    T^2 keeps the soft term's gradients at the size of the hard term's, whatever T is. The gradient of a row's
    soft term at its logits is `T (q_T - p_T)`.
    """

    needs: ClassVar[Needs] = "probabilities"
    kind: Literal["distillation"] = "distillation"

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """`T^2 KL(p || q)`, `[B]`."""
        p_BC = tensor_of(targets, self.kind, "soft targets")
        log_q_BC = (widened(logits_BC) / temperature).log_softmax(-1)
        return (p_BC.xlogy(p_BC) - p_BC * log_q_BC).sum(-1) * temperature**2
