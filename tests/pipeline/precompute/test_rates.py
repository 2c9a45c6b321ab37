from __future__ import annotations

import pytest

from softcask.pipeline.precompute.rates import Rates


def test_nothing_is_known_before_anything_was_reported() -> None:
    rates = Rates(100.0)
    assert rates.read(150.0) == (0.0, 0.0)


def test_rows_and_forward_seconds_a_second_since_work_began() -> None:
    rates = Rates(100.0)
    rates.add(104.0, 32, 3.0)
    rates.add(108.0, 32, 3.0)
    assert rates.read(108.0) == (8.0, 0.75)


def test_a_rate_falls_while_nothing_ends() -> None:
    rates = Rates(0.0)
    rates.add(10.0, 100, 0.0)
    assert [rates.read(now)[0] for now in (10.0, 20.0, 100.0)] == [10.0, 5.0, 1.0]


def test_what_was_long_ago_does_not_count() -> None:
    """1 row a second for an hour, then 10: two minutes later only the 10 are seen."""
    rates = Rates(0.0)
    for second in range(1, 3601):
        rates.add(float(second), 1, 0.0)
    for second in range(3601, 3601 + 130):
        rates.add(float(second), 10, 0.0)
    assert rates.read(3730.0)[0] == pytest.approx(10.0)


def test_where_a_task_takes_longer_than_the_window_a_few_are_looked_back_on() -> None:
    rates = Rates(0.0)
    for number in range(1, 21):
        rates.add(1000.0 * number, 500, 900.0)
    assert rates.read(20_000.0) == pytest.approx((0.5, 0.9))


def test_memory_stays_bounded_and_sums_stay_right_over_a_million_reports() -> None:
    rates = Rates(0.0)
    for number in range(1, 100_001):
        rates.add(number / 1000, 7, 0.001)
    assert rates.read(100.0) == pytest.approx((7000.0, 1.0))
    assert len(rates._reports) <= 4096
