"""What losses of soft targets share: hard labels beside them, rows without labels, weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from softcask.pipeline.student.losses.base import LossOptions, mean_over_rows, widened
from softcask.pipeline.student.losses.hard import label_cross_entropy
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class MixedLoss(LossOptions):
    """`(1 - w) soft + w CE(label, q_1)`, a mean over rows; a row without label has the soft term alone.

    Attributes:
        hard_label_weight: w, 0 to 1; the paper found a considerably lower weight than the soft term's best.
        label_smoothing: Share of the hard label that all classes have alike; the soft term is as it is.
    """

    hard_label_weight: float = Field(default=0.1, ge=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        if self.label_smoothing and not self.hard_label_weight:
            raise ConfigError(
                f"label_smoothing {self.label_smoothing:g} smooths hard labels, and hard_label_weight is 0; "
                "leave it out, or give them weight"
            )
        return self

    def compute(
        self,
        logits_BC: Tensor,
        targets: Any,
        labels_B: Tensor,
        temperature: float,
        *,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """The mixed loss, a scalar; see `LossOptions.compute`."""
        weight = self.hard_label_weight
        losses_B = self.soft_term(logits_BC, targets, temperature)
        if weight:
            losses_B = (1 - weight) * losses_B + weight * self.hard_term(logits_BC, labels_B)
        return mean_over_rows(losses_B, weights_B)

    def soft_term(self, logits_BC: Tensor, targets: Any, temperature: float) -> Tensor:
        """Each row's distance from its targets, `[B]`, in float32 at least; arguments as of `compute`."""
        raise NotImplementedError

    def hard_term(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Each row's cross-entropy with its label, `[B]`; 0 where it has none."""
        return label_cross_entropy(widened(logits_BC), labels_B, self.label_smoothing)
