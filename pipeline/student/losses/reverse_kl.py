"""KL the other way round: a student too small for all that its teacher says keeps to what it can say well.

Forward KL makes it cover every class that the teacher gives mass; reverse KL lets it leave some out, and
charges it for mass where the teacher has none (MiniLLM, arXiv 2306.08543, section 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softcask.pipeline.student.losses.base import Needs, tensor_of, widened
from softcask.pipeline.student.losses.mixed import MixedLoss

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 2.0**-126
"""The least that a teacher gives a class: float32's smallest normal number, lest a KL be infinite."""


class ReverseKL(MixedLoss):
    """`(1 - w) T^2 KL(q_T || p_T) + w CE(label, q_1)`, a mean over rows.

    The gradient of a row's soft term at its logits is `T q (log q - log p - KL(q || p))`.
    """

    needs: ClassVar[Needs] = "probabilities"
    kind: Literal["reverse_kl"] = "reverse_kl"

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """`T^2 KL(q || p)`, `[B]`; a class to which the teacher gives nothing counts as 1.2e-38."""
        log_p_BC = tensor_of(targets, self.kind, "soft targets").clamp_min(_LEAST).log()
        log_q_BC = (widened(logits_BC) / temperature).log_softmax(-1)
        return (log_q_BC.exp() * (log_q_BC - log_p_BC)).sum(-1) * temperature**2
