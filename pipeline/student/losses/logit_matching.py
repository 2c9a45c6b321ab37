"""Logit matching: what distillation tends to as T grows (section 2.1 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from softcask.pipeline.student.losses.base import LossOptions, Needs, widened

if TYPE_CHECKING:
    from torch import Tensor


class LogitMatching(LossOptions):
    """Half the mean squared difference of student's and teachers' logits, each row centred first.

    Centred, because a constant on a row changes no probability; halved, so that it is the limit of `T^2 KL`.
    """

    needs: ClassVar[Needs] = "logits"
    kind: Literal["logit_matching"] = "logit_matching"

    def compute(
        self, logits_BC: Tensor, targets_BC: Tensor | None, labels_B: Tensor, temperature: float
    ) -> Tensor:
        """`mean over rows and classes of (z - v)^2 / 2`, z and v centred; labels and T play no part."""
        if targets_BC is None:
            raise TypeError("logit matching needs the teachers' logits [B, C], got None")
        difference_BC = widened(logits_BC) - targets_BC
        return 0.5 * (difference_BC - difference_BC.mean(-1, keepdim=True)).square().mean()
