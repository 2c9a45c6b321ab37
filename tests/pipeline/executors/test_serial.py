"""The serial executor keeps a bounded number of tasks under way and hands errors on."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.executors.serial import SerialExecutor


@dataclass
class _Worker:
    """Ends a task only when its report is asked for; knows how many were under way."""

    under_way: int = 0
    most: int = 0
    closed: bool = False
    seen: list[int] = field(default_factory=list)

    def build(self) -> _Worker:
        return self

    def submit(self, task: int) -> Future[int]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.seen.append(task)
        return _Lazy(self, task)

    def close(self) -> None:
        self.closed = True


class _Lazy(Future[int]):
    def __init__(self, worker: _Worker, task: int) -> None:
        super().__init__()
        self.worker, self.task = worker, task

    def result(self, timeout: float | None = None) -> int:
        self.worker.under_way -= 1
        if self.task == 13:
            raise RuntimeError("thirteen")
        return self.task * 10


def pool(worker: _Worker, tasks: list[int]) -> Pool[int, int]:
    return Pool(name="p", recipe=worker, tasks=tasks, num_cpus=1, num_gpus=0)


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_every_task_is_reported_once_in_order_and_few_are_under_way(in_flight: int) -> None:
    worker = _Worker()
    reports = list(SerialExecutor(in_flight=in_flight).run([pool(worker, list(range(12)))]))
    assert reports == [task * 10 for task in range(12)]
    assert (worker.most, worker.closed) == (in_flight, True)


def test_an_error_ends_the_run_and_closes_the_worker() -> None:
    worker = _Worker()
    with pytest.raises(RuntimeError, match="thirteen"):
        list(SerialExecutor(in_flight=2).run([pool(worker, list(range(20)))]))
    assert worker.closed
    assert max(worker.seen) < 16
