"""Learning rates against torch's own schedulers; optimisers by what one step does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from softcask.pipeline.student.options import OptimiserOptions
from softcask.pipeline.student.training.optimisers import build_optimiser, learning_rate, set_learning_rate

STEPS = 40


def torch_rates(make: Any) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = make(optimiser)
    rates = []
    for _ in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step() if len(rates) < STEPS else None
    return rates


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.55])
def test_one_cycle_is_torchs(warmup: float) -> None:
    options = OptimiserOptions(lr=0.2, schedule="one_cycle", warmup=warmup)
    expected = torch_rates(
        lambda optimiser: torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=0.2, total_steps=STEPS, pct_start=warmup, cycle_momentum=False
        )
    )
    assert [learning_rate(options, step, STEPS) for step in range(STEPS)] == pytest.approx(expected)


def test_cosine_is_torchs() -> None:
    options = OptimiserOptions(lr=0.2, schedule="cosine")
    expected = torch_rates(lambda optimiser: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS))
    assert [learning_rate(options, step, STEPS) for step in range(STEPS)] == pytest.approx(expected)


def test_constant_is_constant() -> None:
    options = OptimiserOptions(lr=0.2)
    assert {learning_rate(options, step, STEPS) for step in range(STEPS)} == {0.2}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_training_of_a_single_step_has_the_full_rate(schedule: Any) -> None:
    assert learning_rate(OptimiserOptions(lr=0.2, schedule=schedule), 0, 1) == pytest.approx(0.2)


def test_a_cycle_rises_for_three_tenths_unless_told_otherwise() -> None:
    rates = [learning_rate(OptimiserOptions(lr=0.2, schedule="one_cycle"), step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 29


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"kind": "adam", "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1)),
        ({"kind": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1)),
        ({"kind": "sgd", "momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    ],
)
def test_steps_are_those_of_torchs_plain_optimisers(options: dict[str, Any], reference: Any) -> None:
    def walk(make: Any) -> torch.Tensor:
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(7))
        optimiser = make([parameter])
        for _ in range(5):
            optimiser.zero_grad()
            (parameter.sin() * torch.arange(7.0)).sum().backward()
            optimiser.step()
        return parameter.detach()

    built = walk(lambda p: build_optimiser(OptimiserOptions(lr=0.05, **options), p, torch.device("cpu")))
    torch.testing.assert_close(built, walk(reference), rtol=1e-5, atol=1e-6)


def test_every_group_gets_the_rate() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    set_learning_rate(optimiser, 0.25)
    assert [group["lr"] for group in optimiser.param_groups] == [0.25, 0.25]
