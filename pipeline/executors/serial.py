"""In this process, one pool after another: for small work, for debugging, and what Ray must equal."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool, ReportT, name_of
from softcask.pipeline.executors.metrics import Meter, NoMeter
from softcask.pipeline.executors.streak import Streak
from softcask.storage_schemas.errors import SoftcaskError

_LOG = logging.getLogger(__name__)
_Numbered = tuple[int, Any]


@dataclass(slots=True, kw_only=True)
class SerialExecutor:
    """Runs tasks here; a worker's own threads still overlap reading, computing and writing.

    Attributes:
        in_flight: Tasks under way at one time.
        max_retries: How often a task that failed is run again, each time after all others.
    """

    in_flight: int = 2
    max_retries: int = 3
    name: str = "serial"
    workers: int = 1
    _state: ExecutorState = field(default_factory=ExecutorState)

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT | Failure]:
        """Run every task, in order but for those that are run again; see `Executor.run`."""
        self._state = ExecutorState(workers=1)
        for pool in pools:
            yield from self._run_pool(pool, logging.WARNING if len(pools) > 1 else logging.DEBUG)

    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return self._state

    def meter(self) -> Meter:
        """Nobody measures here."""
        return NoMeter()

    def _run_pool(self, pool: Pool[Any, ReportT], level: int) -> Iterator[ReportT | Failure]:
        try:
            worker = pool.recipe.build()
        except SoftcaskError as refusal:
            # Where nothing else goes on, the run ends with it at once.
            _LOG.log(level, "%s is left out: %s", pool.name, refusal)
            yield Failure(pool=pool.name, task=None, error=refusal, attempts=1)
            return
        streak, left = Streak(tasks=len(pool.tasks)), _numbered(pool)
        try:
            for attempt in range(1, self.max_retries + 2):
                failed: list[_Numbered] = []
                for numbered, done in self._ended(worker, left):
                    if (error := done.exception()) is None:
                        streak.ended_well()
                        self._count(done=1)
                        yield done.result()
                    elif not isinstance(error, Exception):
                        raise error
                    elif streak.failed(numbered[0], error, given_up=attempt > self.max_retries):
                        yield Failure(pool=pool.name, task=None, error=error, attempts=attempt)
                        return
                    elif attempt > self.max_retries:
                        self._count(given_up=1)
                        yield Failure(pool=pool.name, task=numbered[1], error=error, attempts=attempt)
                    else:
                        _LOG.warning("%s is run again later: %s", name_of(numbered[1]), error)
                        failed.append(numbered)
                self._count(retries=len(failed))
                left = failed
        finally:
            self._state = replace(self._state, in_flight=0)
            worker.close()

    def _ended(self, worker: Any, tasks: Iterable[_Numbered]) -> Iterator[tuple[_Numbered, Future[Any]]]:
        """Each task with its future, which has ended; a few are under way meanwhile."""
        under_way: deque[tuple[_Numbered, Future[Any]]] = deque()
        for numbered in tasks:
            under_way.append((numbered, worker.submit(numbered[1])))
            if len(under_way) >= self.in_flight:
                yield self._wait(under_way)
        while under_way:
            yield self._wait(under_way)

    def _wait(self, under_way: deque[tuple[_Numbered, Future[Any]]]) -> tuple[_Numbered, Future[Any]]:
        self._state = replace(self._state, in_flight=len(under_way))
        numbered, future = under_way.popleft()
        future.exception()
        return numbered, future

    def _count(self, *, done: int = 0, given_up: int = 0, retries: int = 0) -> None:
        state = self._state
        self._state = replace(
            state,
            done=state.done + done,
            given_up=state.given_up + given_up,
            retries=state.retries + retries,
        )


def _numbered(pool: Pool[Any, Any]) -> Iterable[_Numbered]:
    return enumerate(pool.tasks)
