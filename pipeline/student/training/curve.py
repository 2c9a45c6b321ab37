"""The loss of each step of a training: fetched a few steps at a time, watched, kept."""

from __future__ import annotations

import math

import torch

_AT_ONCE = 16


class LossCurve:
    """Losses by step, over all epochs.

    Attributes:
        steps_per_epoch: Steps of each epoch.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        """No step is done."""
        self.steps_per_epoch = steps_per_epoch
        self._losses: list[float] = []
        self._waiting: list[torch.Tensor] = []

    def restore(self, kept: torch.Tensor, step: int) -> None:
        """Go on after so many steps, of which the last are kept; NaN stands for those that are not."""
        self._losses = [math.nan] * (step - len(kept)) + kept.tolist()
        self._waiting = []

    def __len__(self) -> int:
        """Steps done."""
        return len(self._losses) + len(self._waiting)

    def add(self, loss: torch.Tensor) -> bool:
        """Take a step's loss, a scalar on its device; whether it is time to look at those that wait."""
        self._waiting.append(loss)
        return len(self._waiting) == _AT_ONCE or len(self) % self.steps_per_epoch == 0

    def look(self) -> tuple[int, float] | None:
        """Fetch what waits, together, for each look at a number waits for the device.

        Returns:
            Number and loss of the first of these steps whose loss is not finite, or None.
        """
        first = len(self._losses)
        if self._waiting:
            self._losses += torch.stack(self._waiting).tolist()
            self._waiting.clear()
        fetched = enumerate(self._losses[first:], start=first)
        return next(((step, loss) for step, loss in fetched if not math.isfinite(loss)), None)

    def mean(self, epoch: int) -> float:
        """Mean of what was fetched of an epoch."""
        losses = self._losses[epoch * self.steps_per_epoch : (epoch + 1) * self.steps_per_epoch]
        return sum(losses) / len(losses)

    def tensor(self) -> torch.Tensor:
        """All that was fetched, float64."""
        return torch.tensor(self._losses, dtype=torch.float64)
