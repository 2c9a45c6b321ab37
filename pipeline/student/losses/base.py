"""What a loss is: the section that configures it, which also computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softcask.pipeline.parts import Options

if TYPE_CHECKING:
    from torch import Tensor

Needs = Literal["probabilities", "logits", "compressed", "labels"]
"""What a loss wants of each row: soft targets at T, the teachers' mean logits, one teacher's columns as they
are stored (`CompressedTargets`), or nothing but its label."""


class LossOptions(Options):
    """Base of a student's section `[loss]`.

    Implementations import no torch before they compute: a config is checked where torch may be missing.
    """

    needs: ClassVar[Needs]
    kind: str

    def compute(
        self,
        logits_BC: Tensor,
        targets: Any,
        labels_B: Tensor,
        temperature: float,
        *,
        weights_B: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar: a mean over rows.

        Args:
            logits_BC: The student's logits; those below float32 are widened first.
            targets: What `needs` says: a tensor `[B, C]`, float32 or wider; `CompressedTargets`; or None
                where it needs labels alone.
            labels_B: int64 class indices, -1 where a row has none.
            temperature: T of the targets, above 0.
            weights_B: What each row counts; None: 1 each. They are factors and not shares: of mean 1 they
                leave the loss at its size, and parts of a batch add up to the whole.
        """
        raise NotImplementedError


def widened(logits_BC: Tensor) -> Tensor:
    """The logits in float32 at least: log-softmax and T squared lose too much in 16 bits."""
    return logits_BC.float() if logits_BC.element_size() < 4 else logits_BC


def tensor_of(targets: Any, kind: str, what: str) -> Tensor:
    """The targets, once they are known to be a tensor.

    Raises:
        TypeError: They are something else; says what the loss wants.
    """
    from torch import Tensor

    if not isinstance(targets, Tensor):
        raise TypeError(
            f"the loss {kind} learns from {what} [B, C] as a tensor; found {type(targets).__name__}"
        )
    return targets


def mean_over_rows(losses_B: Tensor, weights_B: Tensor | None) -> Tensor:
    """The mean of the rows' losses, each times its weight; a scalar."""
    return (losses_B if weights_B is None else losses_B * weights_B.to(losses_B.dtype)).mean()
