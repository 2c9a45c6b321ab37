"""`T^2 KL(p || q)` over many classes, a few at a time: neither p nor q is ever there as a whole.

Autograd would keep several arrays of the size of the logits for each loss. Here the only one beside the
logits themselves is their gradient, `T (q - p)`, made chunk by chunk when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softcask.pipeline.device_codecs.tempered.base import TemperedRows, chunks, log_sums, working_dtype
from softcask.pipeline.device_codecs.tempered.even import EvenRows

MakeRows = Callable[[Tensor], TemperedRows]
"""From a student's logits `[B, C]` to soft targets at T met with them."""

_LEAST = -1e30


def divergence(logits_BC: Tensor, rows_of: MakeRows, temperature: float) -> Tensor:
    """`T^2 KL(p || q)` of each row, `[B]`; once differentiable by the logits."""
    losses_B: Tensor = _Divergence.apply(logits_BC, rows_of, temperature)  # type: ignore[no-untyped-call]
    return losses_B


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float) -> Tensor:
    """As `label_cross_entropy`: the divergence from (smoothed) labels at T=1, and their entropy."""
    C = logits_BC.shape[1]
    others, own = smoothing / C, 1 - smoothing + smoothing / C
    log_others = math.log(others) if others else _LEAST
    entropy = -own * math.log(own) - (C - 1) * others * log_others

    def rows_of(logits_BC: Tensor) -> TemperedRows:
        classes_B1 = labels_B.clamp_min(0)[:, None]
        own_B1 = torch.full_like(classes_B1, math.log(own), dtype=working_dtype(logits_BC))
        return EvenRows.of(classes_B1, own_B1, torch.full_like(own_B1, log_others), 1.0, logits_BC)

    return (divergence(logits_BC, rows_of, 1.0) + entropy) * (labels_B >= 0)


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, rows_of: MakeRows, temperature: float) -> Tensor:
        with torch.autocast(logits_BC.device.type, enabled=False):
            rows = rows_of(logits_BC)
            norms_B = log_sums(logits_BC, temperature)
        ctx.save_for_backward(logits_BC, norms_B)
        ctx.rows, ctx.temperature = rows, temperature
        return (rows.sums_B + norms_B) * temperature**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: Tensor) -> tuple[Tensor, None, None]:
        logits_BC, norms_B = ctx.saved_tensors
        factors_B1 = gradient_B[:, None] * ctx.temperature
        gradient_BC = torch.empty_like(logits_BC)
        with torch.autocast(logits_BC.device.type, enabled=False):
            for some in chunks(logits_BC):
                log_q_Bn = logits_BC[:, some].to(norms_B.dtype) / ctx.temperature
                q_Bn = log_q_Bn.sub_(norms_B[:, None]).exp_()
                ctx.rows.subtract_from(q_Bn, some.start)
                torch.mul(q_Bn, factors_B1, out=gradient_BC[:, some])
        return gradient_BC, None, None
