"""In this process, one pool after another: for small work, for debugging, and what Ray must equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from softcask.pipeline.executors.base import Pool, ReportT


@dataclass(slots=True, kw_only=True)
class SerialExecutor:
    """Runs tasks here; a worker's own threads still overlap reading, computing and writing.

    Attributes:
        in_flight: Tasks under way at one time.
    """

    in_flight: int = 2
    name: str = "serial"
    workers: int = 1

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT]:
        """Run every task, reports in order; see `Executor.run`."""
        for pool in pools:
            worker = pool.recipe.build()
            try:
                under_way: deque[Future[ReportT]] = deque()
                for task in pool.tasks:
                    under_way.append(worker.submit(task))
                    if len(under_way) >= self.in_flight:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                worker.close()
