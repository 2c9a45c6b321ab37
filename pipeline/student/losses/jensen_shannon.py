"""Generalised Jensen-Shannon divergence: between forward and reverse KL, and never infinite.

As section 3 of arXiv 2306.13649 (GKD) has it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from softcask.pipeline.student.losses.base import Needs, tensor_of, widened
from softcask.pipeline.student.losses.mixed import MixedLoss

if TYPE_CHECKING:
    from torch import Tensor


class JensenShannon(MixedLoss):
    """`(1 - w) T^2 [beta KL(p || m) + (1 - beta) KL(q || m)] + w CE(label, q_1)`, a mean over rows.

    `m = beta p + (1 - beta) q`, all at T. Divided by beta it tends to KL(p || q) as beta tends to 0, and
    divided by 1 - beta to KL(q || p) as beta tends to 1. Near the teacher it is `beta (1 - beta)` of either:
    a quarter at one half, for which the learning rate or w makes up.

    Attributes:
        beta: Share of the teacher in m, above 0 and below 1.
    """

    needs: ClassVar[Needs] = "probabilities"
    kind: Literal["jensen_shannon"] = "jensen_shannon"
    beta: float = Field(default=0.5, gt=0, lt=1)

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """`T^2` times the divergence, `[B]`."""
        p_BC = tensor_of(targets, self.kind, "soft targets")
        log_p_BC = p_BC.log()
        log_q_BC = (widened(logits_BC) / temperature).log_softmax(-1)
        log_m_BC = (log_p_BC + math.log(self.beta)).logaddexp(log_q_BC + math.log1p(-self.beta))
        teacher_BC = p_BC.xlogy(p_BC) - p_BC * log_m_BC
        student_BC = log_q_BC.exp() * (log_q_BC - log_m_BC)
        return (self.beta * teacher_BC + (1 - self.beta) * student_BC).sum(-1) * temperature**2
