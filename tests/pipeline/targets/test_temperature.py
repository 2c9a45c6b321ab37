"""T epoch by epoch, against the formulas of linear and cosine annealing."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from softcask.pipeline.targets.options import TargetOptions


def temperatures(schedule: dict[str, object], start: float, epochs: int) -> tuple[float, ...]:
    options = TargetOptions.model_validate({"temperature": start, "schedule": schedule})
    return options.temperatures(epochs)


def test_without_a_schedule_t_stays() -> None:
    assert TargetOptions(temperature=3.0).temperatures(4) == (3.0, 3.0, 3.0, 3.0)
    assert temperatures({"kind": "constant"}, 3.0, 2) == (3.0, 3.0)


def test_linear_goes_by_equal_steps_and_its_ends_are_exact() -> None:
    assert temperatures({"kind": "linear", "to": 2}, 10.0, 5) == (10.0, 8.0, 6.0, 4.0, 2.0)


def test_cosine_is_that_of_annealed_learning_rates() -> None:
    found = temperatures({"kind": "cosine", "to": 1}, 9.0, 9)
    expected = [1 + (9 - 1) * (1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(9)]
    assert found == pytest.approx(expected)
    assert (found[0], found[4], found[8]) == pytest.approx((9.0, 5.0, 1.0))


def test_it_may_rise_and_stays_where_it_has_come_to() -> None:
    assert temperatures({"kind": "linear", "to": 4, "epochs": 3}, 1.0, 5) == (1.0, 2.5, 4.0, 4.0, 4.0)


def test_one_epoch_is_at_the_temperature_it_begins_with() -> None:
    assert temperatures({"kind": "cosine", "to": 1}, 9.0, 1) == (9.0,)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"kind": "constant", "to": 2}, "a constant schedule goes nowhere"),
        ({"to": 2}, "a constant schedule goes nowhere"),
        ({"kind": "linear"}, "a linear schedule ends somewhere: give the temperature as to"),
        ({"kind": "cosine", "to": 0}, "greater than 0"),
        ({"kind": "cosine", "to": 2, "epochs": 1}, "greater than or equal to 2"),
        ({"kind": "step", "to": 2}, "constant.*linear.*cosine"),
    ],
)
def test_schedules_that_say_nothing_are_refused(schedule: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TargetOptions.model_validate({"schedule": schedule})
