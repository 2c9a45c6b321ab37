"""Logit matching: what distillation tends to as T grows (section 2.1 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from softcask.pipeline.student.losses.base import Needs, tensor_of, widened
from softcask.pipeline.student.losses.mixed import MixedLoss

if TYPE_CHECKING:
    from torch import Tensor


class LogitMatching(MixedLoss):
    """`(1 - w) mean over classes of (z - v)^2 / 2 + w CE(label, softmax(z))`, a mean over rows; without T.

    Halved, so that it is the limit of `T^2 KL(p_T || q_T)` as T grows, with logits of mean 0 in each row.

    Attributes:
        hard_label_weight: w; 0 by default, which is pure matching.
        zero_mean: Take each row's mean off z and v first: a constant on a row changes no probability. False
            matches them as they are (Caruana and others; what the paper's section 2.1 begins from).
    """

    needs: ClassVar[Needs] = "logits"
    kind: Literal["logit_matching"] = "logit_matching"
    hard_label_weight: float = Field(default=0.0, ge=0, le=1)
    zero_mean: bool = True

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """`mean over classes of (z - v)^2 / 2`, `[B]`."""
        difference_BC = widened(logits_BC) - tensor_of(targets, self.kind, "the teachers' logits")
        if self.zero_mean:
            difference_BC = difference_BC - difference_BC.mean(-1, keepdim=True)
        return 0.5 * difference_BC.square().mean(-1)
