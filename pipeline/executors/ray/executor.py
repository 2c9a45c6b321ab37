"""On a Ray cluster, or on one that is started here for the run and ended with it.

The driver keeps no state of its own: what is committed is in the store, and a task that is run twice is
committed once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool, ReportT
from softcask.pipeline.executors.dispatch import Dispatcher
from softcask.pipeline.executors.metrics import Meter, NoMeter
from softcask.pipeline.executors.queue import Rules
from softcask.pipeline.executors.ray.cluster import RayCluster
from softcask.pipeline.executors.ray.connection import connected
from softcask.pipeline.executors.ray.metrics import RayMeter


@dataclass(slots=True, kw_only=True)
class RayExecutor:
    """Runs all pools at once, each with actors of its own.

    Attributes:
        address: `local` for a cluster of its own on this machine; else as `ray.init` takes it (`auto` inside
            a job).
        max_workers: Actors a pool; None for as many as fit the cluster.
        rules: How much is tried.
        start_timeout: Seconds a pool waits for room for a first actor, at the start and whenever it lost all.
        object_store_mb: Object store of a local cluster, in MiB.
    """

    address: str = "local"
    max_workers: int | None = None
    rules: Rules = field(default_factory=Rules)
    start_timeout: float = 600.0
    object_store_mb: int = 256
    name: str = "ray"
    workers: int = 0
    _dispatcher: Dispatcher | None = field(default=None, repr=False)

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT | Failure]:
        """Run every task; see `Executor.run`."""
        with connected(self.address, object_store_mb=self.object_store_mb):
            try:
                self._dispatcher = Dispatcher(
                    pools,
                    RayCluster(grows=self.address != "local"),
                    self.rules,
                    most=self.max_workers,
                    patience=self.start_timeout,
                )
                with _interrupted_by_sigterm():
                    yield from self._dispatcher.reports()
            finally:
                if self._dispatcher is not None:
                    self.workers = max(self.workers, self._dispatcher.workers)

    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return self._dispatcher.state() if self._dispatcher is not None else ExecutorState()

    def meter(self) -> Meter:
        """Ray's own export for Prometheus."""
        return RayMeter() if ray.is_initialized() else NoMeter()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """What a scheduler sends before it kills is an interruption as Ctrl-C is; Ray would abort the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
