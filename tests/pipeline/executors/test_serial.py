"""The serial executor keeps a bounded number of tasks under way and hands errors on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool
from softcask.pipeline.executors.serial import SerialExecutor
from softcask.storage_schemas.errors import TeacherError


@dataclass
class _Worker:
    """Ends a task only when its report is asked for; knows how many were under way."""

    fails: dict[int, int] = field(default_factory=dict)
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

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self.worker.under_way -= 1
            if self.worker.fails.get(self.task, 0) > 0:
                self.worker.fails[self.task] -= 1
                self.set_exception(TeacherError(f"unit {self.task} of teacher 'a' is bad"))
            else:
                self.set_result(self.task * 10)
        return super().exception(timeout)


def pool(worker: _Worker, tasks: Sequence[int]) -> Pool[int, int]:
    return Pool(name="p", recipe=worker, tasks=tasks, num_cpus=1, num_gpus=0)


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_every_task_is_reported_once_in_order_and_few_are_under_way(in_flight: int) -> None:
    worker = _Worker()
    reports = list(SerialExecutor(in_flight=in_flight).run([pool(worker, range(12))]))
    assert reports == [task * 10 for task in range(12)]
    assert (worker.most, worker.closed) == (in_flight, True)


def test_a_task_that_failed_is_run_again_after_all_others() -> None:
    worker = _Worker(fails={3: 2})
    executor = SerialExecutor(in_flight=2, max_retries=2)
    assert list(executor.run([pool(worker, range(6))])) == [0, 10, 20, 40, 50, 30]
    assert worker.seen == [0, 1, 2, 3, 4, 5, 3, 3]
    assert executor.state() == ExecutorState(workers=1, done=6, retries=2)


def test_a_task_that_always_fails_is_given_up_and_everything_else_goes_on() -> None:
    executor = SerialExecutor(max_retries=1)
    *reports, failure = executor.run([pool(_Worker(fails={3: 9}), range(6))])
    assert reports == [0, 10, 20, 40, 50]
    assert isinstance(failure, Failure) and (failure.task, failure.attempts) == (3, 2)
    assert executor.state().given_up == 1


def test_an_error_that_every_task_has_ends_its_pool_at_the_third_and_others_go_on() -> None:
    broken, whole = _Worker(fails=dict.fromkeys(range(10**6), 9)), _Worker()
    failure, *reports = SerialExecutor().run([pool(broken, range(10**6)), pool(whole, range(3))])
    assert isinstance(failure, Failure) and failure.task is None
    assert reports == [0, 10, 20]
    assert len(broken.seen) <= 4 and broken.closed


def test_an_interruption_is_no_failure() -> None:
    worker = _Worker()
    interrupted: Future[int] = Future()
    interrupted.set_exception(KeyboardInterrupt())
    worker.submit = lambda _: interrupted  # type: ignore[assignment,method-assign,misc]
    with pytest.raises(KeyboardInterrupt):
        list(SerialExecutor().run([pool(worker, range(20))]))
    assert worker.closed
