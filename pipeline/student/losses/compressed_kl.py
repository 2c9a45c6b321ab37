"""Distillation straight from what a codec keeps: a head and a tail, or a profile; never all of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softcask.pipeline.student.losses.base import Needs
from softcask.pipeline.student.losses.mixed import MixedLoss
from softcask.pipeline.targets.compressed import CompressedTargets

if TYPE_CHECKING:
    from torch import Tensor


class CompressedKL(MixedLoss):
    """`(1 - w) T^2 KL(p_T || q_T) + w CE(label, q_1)` as `distillation` has it, of one teacher's columns.

    The soft targets are those that the codec would decode, to float32's rounding: `topk` with its tail spread
    evenly, `lowrank` along its profile. Columns are what crosses to the device, and the one array of the size
    of the logits that a term makes there is their gradient, `T (q_T - p_T)`.
    """

    needs: ClassVar[Needs] = "compressed"
    kind: Literal["compressed_kl"] = "compressed_kl"

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """`T^2 KL(p || q)`, `[B]`."""
        from softcask.pipeline.student.losses.streamed import divergence

        if not isinstance(targets, CompressedTargets):
            raise TypeError(
                f"the loss {self.kind} learns from CompressedTargets; found {type(targets).__name__}"
            )
        return divergence(logits_BC, lambda logits: targets.tempered(temperature, logits), temperature)

    def hard_term(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """As other losses have it, a few classes at a time."""
        from softcask.pipeline.student.losses.streamed import cross_entropy

        return cross_entropy(logits_BC, labels_B, self.label_smoothing)
