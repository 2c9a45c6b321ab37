"""Drivers that cooperate do not go through the units side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worlds import run_config, teacher, write_rows

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.precompute.apart import BegunAt, apart
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.runs import read_runs


@given(items=st.lists(st.integers(), max_size=9), first=st.integers(0, 8), place=st.integers(-12, 12))
def test_all_items_are_there_once_from_some_place_on(items: list[int], first: int, place: int) -> None:
    first = min(first, len(items))
    begun, expected = BegunAt(items, first), items[first:] + items[:first]
    assert list(begun) == [*begun[:]] == expected
    assert list(begun[1:3]) == expected[1:3]
    assert len(begun) == len(items)
    if -len(items) <= place < len(items):
        assert begun[place] == expected[place]
    else:
        with pytest.raises(IndexError):
            begun[place]
    back = BegunAt(items, first, backwards=True)
    assert list(back) == [*back[:]] == expected[::-1]


def test_pairs_go_both_ways_from_the_beginning_the_middle_and_the_quarters() -> None:
    pool = Pool(name="p", recipe=cast(Any, None), tasks=range(8), num_cpus=1, num_gpus=0)
    begins = [list(apart([pool], rank)[0].tasks)[:3] for rank in range(6)]
    assert begins == [[0, 1, 2], [7, 6, 5], [4, 5, 6], [3, 2, 1], [2, 3, 4], [1, 0, 7]]


def test_nothing_is_copied() -> None:
    million = range(1_000_000)
    assert BegunAt(million, 7)._items is million


def test_a_second_driver_begins_elsewhere_and_does_little_that_the_first_does(tmp_path: Path) -> None:
    write_rows(tmp_path)
    config = run_config(tmp_path, teacher("a"))
    units: dict[str, list[int]] = {"first": [], "second": []}

    def second(progress: Progress) -> None:
        if progress.task is not None:
            units["second"].append(progress.task.index)

    def first(progress: Progress) -> None:
        if progress.task is not None:
            units["first"].append(progress.task.index)
            if len(units["first"]) == 1:
                precompute(config, watch=second)

    precompute(config, watch=first)
    assert units["first"][0] == 0
    assert units["second"][:3] == [7, 6, 5]
    runs = read_runs(StoreObjects.at(str(tmp_path / "cask")), records=True)
    assert sum(run.record.units.get("a", 0) for run in runs if run.record) == 8
