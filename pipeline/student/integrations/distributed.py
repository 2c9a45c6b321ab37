"""What data-parallel training needs besides a loader that gives each process its rows."""

from __future__ import annotations

import torch
import torch.distributed


def mean_over_all(loss: torch.Tensor, rows: int) -> torch.Tensor:
    """A process's loss, scaled so that averaged gradients are those of the mean over all processes' rows.

    `DistributedDataParallel` weighs processes equally, whatever their rows; of an epoch's last batch one may
    have a row more than another. Without processes, or with one, the loss is left as it is.

    Args:
        loss: Mean over this process's rows of a batch, a scalar.
        rows: How many those are. Every process calls this for every batch, because they add them up.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return loss
    total = torch.tensor(float(rows), device=loss.device)
    distributed.all_reduce(total)
    return loss * (rows * distributed.get_world_size() / total)
