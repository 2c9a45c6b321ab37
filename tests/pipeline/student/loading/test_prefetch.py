"""Results ahead of time, in order, with errors in their place and no thread left behind."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from softcask.pipeline.student.loading.prefetch import prefetched


def test_results_come_in_order_and_all() -> None:
    assert list(prefetched(lambda number: number * 2, range(50), 3)) == list(range(0, 100, 2))


def test_an_error_comes_after_the_results_before_it() -> None:
    results = prefetched(lambda number: 10 // (2 - number), range(5), 3)
    assert [next(results), next(results)] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_more_than_depth_are_made_ahead() -> None:
    made: list[int] = []
    results = prefetched(lambda number: made.append(number) or number, count(), 3)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    results.close()  # type: ignore[attr-defined]
    assert len(made) <= 5 + 3


def test_closing_early_ends_the_thread() -> None:
    before = threading.active_count()
    results = prefetched(lambda number: number, range(100), 4)
    next(results)
    assert threading.active_count() == before + 1
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
