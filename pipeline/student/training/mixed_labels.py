"""The loss of a batch whose rows may be mixed with others: two labels a row, and a share of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from softcask.pipeline.student.loading.batch import StudentBatch
    from softcask.pipeline.student.losses.base import LossOptions


def batch_loss(loss: LossOptions, logits_BC: Tensor, batch: StudentBatch) -> Tensor:
    """The loss of a batch, a scalar.

    Weights are factors, so of mixed rows it is the loss by their own labels, weighted by their shares, and
    the loss by their partners' labels, weighted by the rest. The soft term is the same in both: soft targets
    are what the teachers think of the mixed rows.

    Args:
        loss: What is minimised.
        logits_BC: The student's.
        batch: On the same device.
    """
    targets, temperature = batch.targets, batch.temperature
    weights_B, share_B = batch.weights_B, batch.share_B
    if share_B is None or batch.partner_labels_B is None:
        return loss.compute(logits_BC, targets, batch.labels_B, temperature, weights_B=weights_B)
    own_B, rest_B = share_B, 1 - share_B
    if weights_B is not None:
        own_B, rest_B = own_B * weights_B, rest_B * weights_B
    by_own = loss.compute(logits_BC, targets, batch.labels_B, temperature, weights_B=own_B)
    return by_own + loss.compute(logits_BC, targets, batch.partner_labels_B, temperature, weights_B=rest_B)
