"""What a loss must know of soft targets p at T, without ever holding all classes of all rows.

With q the student's at the same T, `KL(p || q) = sum_i p_i (log p_i - z_i / T) + log sum_i exp(z_i / T)`, and
its gradient at z is `(q - p) / T`. The first sum, and p itself for a few classes, are all that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

NUMBERS_ON_CPU, NUMBERS = 1 << 20, 1 << 24
"""Numbers at a time: what a CPU's cache holds; elsewhere, enough to keep a device busy."""


class TemperedRows(Protocol):
    """Soft targets p `[B, C]` at one temperature, met with a student's logits z `[B, C]`.

    Attributes:
        sums_B: `sum_i p_i (log p_i - z_i / T)`.
    """

    @property
    def sums_B(self) -> Tensor:
        """`sum_i p_i (log p_i - z_i / T)` `[B]`, of z's dtype, float32 at least."""

    def subtract_from(self, values_Bn: Tensor, first: int) -> None:
        """Take p of the classes from `first` away from `values_Bn` `[B, n]`, in place."""


def working_dtype(logits_BC: Tensor) -> torch.dtype:
    """What is computed with: float32, or float64 where the logits are that."""
    return torch.float64 if logits_BC.dtype == torch.float64 else torch.float32


def chunks(logits_BC: Tensor) -> Iterator[slice]:
    """All classes once, a few at a time."""
    B, C = logits_BC.shape
    numbers = NUMBERS_ON_CPU if logits_BC.device.type == "cpu" else NUMBERS
    size = max(64, numbers // max(B, 1))
    return (slice(first, min(first + size, C)) for first in range(0, C, size))


def log_sums(logits_BC: Tensor, temperature: float) -> Tensor:
    """`log sum_i exp(z_i / T)` `[B]`, in chunks."""
    dtype = working_dtype(logits_BC)
    parts = [(logits_BC[:, some].to(dtype) / temperature).logsumexp(dim=1) for some in chunks(logits_BC)]
    return torch.stack(parts).logsumexp(dim=0)


def add_into(values_Bn: Tensor, first: int, classes_BK: Tensor, added_BK: Tensor) -> None:
    """Add to those of some classes that are among the n from `first`, in place."""
    places_BK = classes_BK - first
    inside_BK = (places_BK >= 0) & (places_BK < values_Bn.shape[1])
    places_BK = places_BK.clamp_(0, values_Bn.shape[1] - 1)
    # All are added, those that are elsewhere as 0: to pick some out would make the host wait for the device.
    values_Bn.scatter_add_(1, places_BK, torch.where(inside_BK, added_BK, 0.0))
