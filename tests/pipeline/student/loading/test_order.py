"""Each row once an epoch, whoever takes it: at any number of processes, and of others after a resumption."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from softcask.pipeline.student.loading.order import (
    MixedOrder,
    RowOrder,
    global_batches,
    share_of,
    shares,
    steps,
)

ROWS = st.integers(1, 400)
BATCH = st.integers(1, 40)
WORLD = st.integers(1, 9)
LEG = st.tuples(WORLD, BATCH, st.integers(0, 12))


def order_of(rows: int, units: int | None) -> RowOrder:
    if units is None:
        return RowOrder(rows=rows)
    return RowOrder(rows=rows, units=np.array_split(np.arange(rows), min(units, rows)), units_a_window=2)


@given(
    rows=ROWS,
    units=st.none() | st.integers(1, 9),
    legs=st.lists(LEG, max_size=4),
    last=st.tuples(WORLD, BATCH),
)
def test_every_row_comes_once_an_epoch_however_often_another_world_goes_on(
    rows: int, units: int | None, legs: list[tuple[int, int, int]], last: tuple[int, int]
) -> None:
    order, seen, done = order_of(rows, units).of(3, 5), [], 0
    for world, batch, most in [*legs, (*last, rows)]:
        for start, stop in list(global_batches(rows, done, batch, world))[:most]:
            for rank in range(world):
                first, end = share_of(start, stop, rank, world)
                seen += order[first:end].tolist()
            done = stop
    assert sorted(seen) == list(range(rows))


@given(rows=ROWS, batch=BATCH, world=WORLD)
def test_all_but_the_last_batch_are_full_and_the_last_is_shared_evenly(
    rows: int, batch: int, world: int
) -> None:
    spans = list(global_batches(rows, 0, batch, world))
    assert len(spans) == steps(rows, batch, world)
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    sizes = [
        [end - first for first, end in (share_of(*span, r, world) for r in range(world))] for span in spans
    ]
    assert all(each == [batch] * world for each in sizes[:-1])
    assert max(sizes[-1]) - min(sizes[-1]) <= 1
    assert rows < world or min(sizes[-1]) >= 1, "no process is without a row"
    assert sum(map(sum, sizes)) == rows


@given(world=WORLD, rows=ROWS, batch=BATCH)
def test_shares_of_a_batch_follow_each_other(world: int, rows: int, batch: int) -> None:
    bounds = [share_of(7, 7 + rows, rank, world) for rank in range(world)]
    assert bounds[0][0] == 7 and bounds[-1][1] == 7 + rows
    assert all(end == first for (_, end), (first, _) in pairwise(bounds))


def test_an_order_without_windows_is_numpys_permutation() -> None:
    expected = np.random.default_rng(np.random.SeedSequence((4, 2))).permutation(30)
    np.testing.assert_array_equal(RowOrder(rows=30).of(4, 2), expected)


def test_seed_and_epoch_make_other_orders() -> None:
    order = order_of(200, 7)
    found = {tuple(order.of(seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(found) == 9


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    epochs=st.integers(1, 5),
)
def test_a_mixture_gives_each_its_share_in_any_stretch_and_all_of_its_rows_in_turn(
    sizes: list[int], weights: list[int], epochs: int
) -> None:
    takes = shares(sum(sizes), weights[: len(sizes)])
    if 0 in takes:
        return
    mixed = MixedOrder(orders=[RowOrder(rows=size) for size in sizes], takes=takes)
    rows = np.concatenate([mixed.of(1, epoch) for epoch in range(epochs)])
    assert len(rows) == len(mixed) * epochs
    first = np.cumsum([0, *sizes])
    numbers = np.searchsorted(first, rows, side="right") - 1
    for number, (size, take) in enumerate(zip(sizes, takes, strict=True)):
        own = rows[numbers == number] - first[number]
        assert len(own) == take * epochs
        for turn in range(len(own) // size):
            assert sorted(own[turn * size : (turn + 1) * size].tolist()) == list(range(size))
        came = np.cumsum(numbers[: len(mixed)] == number)
        due = take * np.arange(1, len(mixed) + 1) / len(mixed)
        assert np.abs(came - due).max() <= 1.5 + 0.5 * len(sizes)


@given(rows=st.integers(1, 1000), weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
def test_shares_are_whole_add_up_and_are_off_by_less_than_one(rows: int, weights: list[float]) -> None:
    found = shares(rows, weights)
    assert sum(found) == rows
    exact: NDArray[np.float64] = rows * np.array(weights) / sum(weights)
    assert np.abs(np.array(found) - exact).max() < 1 + 1e-6


def test_rows_proportional_to_sizes_come_once_an_epoch() -> None:
    mixed = MixedOrder(orders=[RowOrder(rows=30), RowOrder(rows=10)], takes=shares(40, [30, 10]))
    assert Counter(mixed.of(0, 3).tolist()) == Counter(range(40))
