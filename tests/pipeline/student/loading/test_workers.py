"""Processes that read ahead: the same batches in the same order as a thread makes, from the same state."""

from __future__ import annotations

import multiprocessing
import threading
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from softcask.pipeline.student import StudentBatch, StudentLoader, loader
from softcask.storage_schemas.errors import MisalignedRows

WINDOWS = {"keep_bytes": 0, "window_bytes": 3000}


def made(world: Any, **options: Any) -> StudentLoader:
    defaults = {"inputs": world.source(), "temperature": 2, "batch_size": 24}
    return loader(world.store, **{**defaults, **options})


def assert_equal(found: list[StudentBatch], expected: list[StudentBatch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("inputs", "targets", "labels_B", "positions_B", "rows_B"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("options", [{}, WINDOWS])
def test_any_number_of_workers_gives_the_batches_that_a_thread_does(
    world: Any, workers: int, options: dict[str, int]
) -> None:
    straight, found = made(world, **options), made(world, num_workers=workers, **options)
    for _ in range(2):
        assert_equal(list(found), list(straight))


def test_spawned_workers_give_the_same(world: Any) -> None:
    found = made(world, num_workers=1, start_method="spawn")
    assert_equal(list(found), list(made(world)))


def test_a_state_is_good_for_another_number_of_workers(world: Any) -> None:
    expected = list(made(world))
    found = made(world, num_workers=2)
    begun = list(islice(iter(found), 4))
    resumed = made(world)
    resumed.load_state_dict(found.state_dict())
    assert_equal([*begun, *resumed], expected)


def test_workers_are_there_for_the_next_iteration_though_one_was_left_early(world: Any) -> None:
    found = made(world, num_workers=2)
    next(iter(found))
    assert_equal(list(found), list(made(world)))


def test_an_error_in_a_worker_is_the_one_that_a_thread_raises(world: Any) -> None:
    world.inputs[17, 0] += 1
    world.save(inputs=world.inputs)
    with pytest.raises(MisalignedRows, match=r"^1 of the \d+ rows of a batch .*row-00000017\)"):
        list(made(world, num_workers=2))


def test_what_a_training_draws_does_not_depend_on_the_number_of_workers(world: Any) -> None:
    drawn = []
    for workers in (0, 2):
        torch.manual_seed(3)
        found = made(world, num_workers=workers)
        drawn.append([torch.rand(1).item() for _ in found])
    assert drawn[0] == drawn[1]


def test_no_process_is_started_where_there_is_nothing_to_read(world: Any) -> None:
    before = multiprocessing.active_children()
    found = made(world, inputs=None, num_workers=2)
    expected = made(world, inputs=None)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.targets, other.targets)
        assert multiprocessing.active_children() == before


def test_a_temperature_by_epoch_is_kept_beside_workers_too(world: Any) -> None:
    options = {"temperature": lambda epoch: 1.0 + epoch, "epochs": 2}
    assert_equal(list(made(world, num_workers=2, **options)), list(made(world, **options)))


def test_a_dataset_is_read_in_workers(world: Any) -> None:
    rows = [torch.from_numpy(row) for row in world.inputs]
    options: dict[str, Any] = {"inputs": rows, "ids": [f"row-{row:08d}" for row in range(200)]}
    found = list(made(world, num_workers=2, **options))
    for batch in found:
        np.testing.assert_array_equal(batch.inputs, world.inputs[batch.positions_B])
    assert_equal(found, list(made(world, **options)))


def test_no_thread_is_left_when_an_iteration_ends(world: Any) -> None:
    before = threading.active_count()
    found = made(world)
    list(found)
    batches = iter(found)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
