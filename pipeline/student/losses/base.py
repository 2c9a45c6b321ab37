"""What a loss is: the section that configures it, which also computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from softcask.pipeline.parts import Options

if TYPE_CHECKING:
    from torch import Tensor

Needs = Literal["probabilities", "logits", "labels"]
"""What a loss wants of each row: soft targets at T, the teachers' logits, or nothing but its label."""


class LossOptions(Options):
    """Base of a student's section `[loss]`.

    Implementations use tensor methods and import no torch: a config is checked where torch may be missing.
    """

    needs: ClassVar[Needs]
    kind: str

    def compute(
        self, logits_BC: Tensor, targets_BC: Tensor | None, labels_B: Tensor, temperature: float
    ) -> Tensor:
        """The loss, a scalar: a mean over rows.

        Args:
            logits_BC: The student's logits; those below float32 are widened first.
            targets_BC: What `needs` says, float32 or wider; None where it needs labels alone.
            labels_B: int64 class indices, -1 where a row has none.
            temperature: T, above 0.
        """
        raise NotImplementedError


def widened(logits_BC: Tensor) -> Tensor:
    """The logits in float32 at least: log-softmax and T squared lose too much in 16 bits."""
    return logits_BC.float() if logits_BC.element_size() < 4 else logits_BC
