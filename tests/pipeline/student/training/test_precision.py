"""The faster precision is chosen, by a clock that the test holds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from softcask.pipeline.student.training import precision as module
from softcask.pipeline.student.training.precision import Precision, fastest


class Clock:
    """Time that passes only in steps."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.steps: Counter[str] = Counter()

    def perf_counter(self) -> float:
        return self.now

    def step(self, precision: Precision) -> None:
        self.now += self.seconds[precision.dtype]
        self.steps[precision.dtype] += 1


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [(0.010, 0.002, "bfloat16"), (0.010, 0.040, "float32"), (0.010, 0.0095, "float32")],
)
def test_the_faster_one_is_taken_when_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float, chosen: str
) -> None:
    clock = Clock({"float32": float32, "bfloat16": bfloat16})
    monkeypatch.setattr(module, "time", clock)
    precision, sentence = fastest(clock.step, "cpu")
    assert precision == Precision(dtype=chosen, device_type="cpu")  # type: ignore[arg-type]
    assert sentence.startswith(f"dtype auto: {chosen} (a step takes 10.0 ms in float32")


def test_a_processor_that_crawls_is_asked_for_one_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock({"float32": 0.5, "bfloat16": 30.0})
    monkeypatch.setattr(module, "time", clock)
    precision, _ = fastest(clock.step, "cpu")
    assert precision.dtype == "float32"
    assert clock.steps["bfloat16"] == 1


def test_a_forward_pass_computes_in_what_was_chosen() -> None:
    layer, row = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with Precision(dtype="bfloat16", device_type="cpu").autocast():
        assert layer(row).dtype == torch.bfloat16
    with Precision(dtype="float32", device_type="cpu").autocast():
        assert layer(row).dtype == torch.float32
