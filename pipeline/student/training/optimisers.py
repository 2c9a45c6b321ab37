"""Optimisers by name, and the learning rate as a function of the step.

The rate has no state of its own, so that a resumed training cannot have another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from softcask.pipeline.student.options import OptimiserOptions

_WARMUP = 0.3
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4


def build_optimiser(
    options: OptimiserOptions, parameters: Iterable[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of these parameters, which stand on `device` already."""
    # Fused kernels halve the cost of a small student's step on a CPU; other devices may not have them.
    fused = device.type in ("cpu", "cuda")
    if options.kind == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=options.lr,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            fused=fused,
        )
    kind = torch.optim.Adam if options.kind == "adam" else torch.optim.AdamW
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=fused)


def learning_rate(options: OptimiserOptions, step: int, steps: int) -> float:
    """The rate of one step.

    Args:
        options: Peak and schedule.
        step: From 0, over all epochs.
        steps: Of the whole training.
    """
    if options.schedule == "cosine":
        return _between(options.lr, 0.0, step / steps)
    if options.schedule == "one_cycle":
        warmup = _WARMUP if options.warmup is None else options.warmup
        return _one_cycle(options.lr, warmup, step, steps)
    return options.lr


def _one_cycle(peak: float, warmup: float, step: int, steps: int) -> float:
    start = peak / _START_DIVISOR
    top = warmup * steps - 1
    if step <= top:
        return _between(start, peak, step / top if top > 0 else 1.0)
    return _between(peak, start / _END_DIVISOR, min(1.0, (step - top) / (steps - 1 - top)))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
