"""float32 or bfloat16: measured, for bfloat16 is much faster on some processors and crawls on others."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from softcask.pipeline.student.options import Dtype

_ENOUGH = 1.0
_TOO_LONG = 3.0
_MOST_ROUNDS = 12
_WORTHWHILE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What a forward pass computes with; parameters stay float32.

    Attributes:
        dtype: float32, or bfloat16 by autocast.
        device_type: "cpu", "cuda".
    """

    dtype: Dtype
    device_type: str

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device_type, dtype=torch.bfloat16)


def fastest(step: Callable[[Precision], None], device_type: str) -> tuple[Precision, str]:
    """Whichever precision takes less time a step, and a sentence that says so.

    Args:
        step: Does one whole training step on something that may be spoiled, and waits for it.
        device_type: Where.
    """
    full = Precision(dtype="float32", device_type=device_type)
    half = Precision(dtype="bfloat16", device_type=device_type)
    full_seconds, half_seconds = _least_seconds(step, full, half)
    chosen = half if half_seconds < _WORTHWHILE * full_seconds else full
    return chosen, (
        f"dtype auto: {chosen.dtype} (a step takes {full_seconds * 1e3:.1f} ms in float32, "
        f"{half_seconds * 1e3:.1f} ms in bfloat16)"
    )


def _least_seconds(
    step: Callable[[Precision], None], full: Precision, half: Precision
) -> tuple[float, float]:
    # By turns, so that a busy moment of the machine meets both; the least, because the first step warms up.
    seconds: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while len(seconds) < _MOST_ROUNDS:
        seconds.append((_timed(step, full), _timed(step, half)))
        passed = time.perf_counter() - begun
        if passed > _TOO_LONG or (passed > _ENOUGH and len(seconds) > 1):
            break
    return min(times[0] for times in seconds), min(times[1] for times in seconds)


def _timed(step: Callable[[Precision], None], precision: Precision) -> float:
    started = time.perf_counter()
    step(precision)
    return time.perf_counter() - started
