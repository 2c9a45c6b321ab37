"""On Ray: an actor a worker, a few tasks in flight each, so that it reads and writes while it computes.

Only tasks and reports cross Ray's object store. The driver keeps no state of its own: what is committed is
in the store, and a task that is run twice is committed once. An actor that dies is replaced and its tasks
are run again.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool, Recipe, ReportT, Worker
from softcask.storage_schemas.errors import ExecutorError, SoftcaskError

_LOG = logging.getLogger(__name__)
_LOOK_EVERY = 10.0
"""Seconds without news after which it is asked whether any worker has found room."""


@dataclass(slots=True, kw_only=True)
class RayExecutor:
    """Runs tasks on a Ray cluster, or on one that it starts here and ends afterwards.

    Attributes:
        address: `local` for a cluster of its own on this machine; else as `ray.init` takes it (`auto` inside
        a job). max_workers: Actors a pool; None for as many as fit the cluster.
        in_flight: Tasks under way an actor.
        max_retries: How often a task is run again when its actor died.
        start_timeout: Seconds to wait for room for the first actor.
        object_store_mb: Object store of a local cluster, in MiB.
    """

    address: str = "local"
    max_workers: int | None = None
    in_flight: int = 2
    max_retries: int = 3
    start_timeout: float = 600.0
    object_store_mb: int = 256
    name: str = "ray"
    workers: int = 0

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT | Failure]:
        """Run every task; see `Executor.run`."""
        started_here = not ray.is_initialized()
        if started_here:
            self._connect()
        try:
            for pool in pools:
                if pool.tasks:
                    yield from self._run_pool(pool)
        finally:
            if started_here:
                ray.shutdown()

    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return ExecutorState(workers=self.workers)

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == "local":
            # Without this, Ray may turn on token authentication and write a token file into the user's home.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options |= {"object_store_memory": self.object_store_mb << 20, "include_dashboard": False}
        try:
            ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ExecutorError(
                f"could not connect to Ray at {self.address!r}: {error}. Give executor.address = 'local' to "
                "start a cluster here, or the address of one that runs."
            ) from error

    def _run_pool(self, pool: Pool[Any, ReportT]) -> Iterator[ReportT]:
        run = _PoolRun(
            pool=pool,
            in_flight=self.in_flight,
            max_retries=self.max_retries,
            start_timeout=self.start_timeout,
            todo=deque(pool.tasks),
        )
        try:
            for _ in range(self._worker_count(pool)):
                run.start_actor()
            yield from run.reports()
        finally:
            run.end()
            self.workers = max(self.workers, run.started)

    def _worker_count(self, pool: Pool[Any, ReportT]) -> int:
        has: dict[str, float] = ray.cluster_resources()
        needs = _needs(pool)
        fits = min(int(has.get(name, 0) / need) for name, need in needs.items() if need > 0)
        if fits < 1 and self.address == "local":
            raise ExecutorError(
                f"a worker of {pool.name} needs {_resources(needs)}; this machine has {_resources(has)}. "
                "Lower num_cpus or num_gpus of its teachers, or use a cluster that has them."
            )
        most = min(self.max_workers or fits, len(pool.tasks))
        # A cluster may grow; this machine does not.
        return max(1, min(most, fits) if self.address == "local" else most)


class _Actor:
    """Runs in Ray: a worker behind a call that waits for its report."""

    def __init__(self, recipe: Recipe[Any, Any]) -> None:
        self._recipe = recipe
        self._worker: Worker[Any, Any] | None = None

    def start(self) -> None:
        # Not in __init__: an error raised there would reach the driver as the actor's death, its type lost.
        self._worker = self._recipe.build()

    def run(self, task: Any) -> Any:
        if self._worker is None:
            raise ExecutorError("the worker was given a task before it was started")
        return self._worker.submit(task).result()


@dataclass(slots=True, kw_only=True)
class _PoolRun:
    """One pool under way: which call is whose.

    A task whose worker died is a suspect: it runs again last and alone, so that a unit that takes down its
    worker takes no other with it and is the one that the error names.
    """

    pool: Pool[Any, Any]
    in_flight: int
    max_retries: int
    start_timeout: float
    todo: deque[Any]
    suspects: deque[Any] = field(default_factory=deque)
    actors: dict[Any, bool] = field(default_factory=dict)  # actor -> whether it has started
    calls: dict[Any, tuple[Any, Any]] = field(default_factory=dict)  # call -> (actor, task); None: its start
    deaths: Counter[Any] = field(default_factory=Counter)  # by task; None: starts since one went well
    started: int = 0

    def start_actor(self) -> None:
        remote: Any = ray.remote(num_cpus=self.pool.num_cpus, num_gpus=self.pool.num_gpus)(_Actor)
        # One more thread than tasks, so that a start never waits behind them.
        actor = remote.options(max_concurrency=self.in_flight + 1).remote(self.pool.recipe)
        self.actors[actor] = False
        self.calls[actor.start.remote()] = (actor, None)

    def reports(self) -> Iterator[Any]:
        # Not until every call is in: an actor that never found room must not keep a finished run waiting.
        while self.todo or self.suspects or any(task is not None for _, task in self.calls.values()):
            self._feed()
            call = self._next_call()
            actor, task = self.calls.pop(call)
            try:
                report = ray.get(call)
            except RayTaskError as error:
                raise _cause(error) from error
            except RayError as error:
                self._replace(actor, task, error)
            else:
                if task is None:
                    self.actors[actor] = True
                    self.started += 1
                    self.deaths[None] = 0
                else:
                    yield report

    def _next_call(self) -> Any:
        waited = 0.0
        while True:
            ready, _ = ray.wait(list(self.calls), num_returns=1, timeout=_LOOK_EVERY)
            if ready:
                return ready[0]
            if any(self.actors.values()):
                continue  # a long task; a unit has no deadline
            waited += _LOOK_EVERY
            wants = f"a worker of {self.pool.name} waits for {_resources(_needs(self.pool))}"
            free: dict[str, float] = ray.available_resources()
            if waited >= self.start_timeout:
                raise ExecutorError(
                    f"{wants} since {waited:.0f} s; free in the cluster: {_resources(free)}. Free some, add "
                    "nodes, lower num_cpus or num_gpus of its teachers, or raise executor.start_timeout."
                )
            _LOG.warning("%s; free in the cluster: %s; waiting %.0f s", wants, _resources(free), waited)

    def _feed(self) -> None:
        """Give every actor that has started as many tasks as it may have under way; a suspect goes alone."""
        busy: dict[Any, list[Any]] = {actor: [] for actor in self.actors}
        for actor, task in self.calls.values():
            if task is not None and actor in busy:
                busy[actor].append(task)
        for actor, under_way in busy.items():
            if not self.actors[actor] or any(self.deaths[task] for task in under_way):
                continue
            if self.todo:
                for _ in range(min(self.in_flight - len(under_way), len(self.todo))):
                    self._give(actor, self.todo.popleft())
            elif self.suspects and not under_way:
                self._give(actor, self.suspects.popleft())

    def _give(self, actor: Any, task: Any) -> None:
        self.calls[actor.run.remote(task)] = (actor, task)

    def _replace(self, actor: Any, task: Any, error: RayError) -> None:
        """Put a lost actor's task back; start another actor, once for all the calls it had."""
        self.deaths[task] += 1
        if self.deaths[task] > self.max_retries:
            raise ExecutorError(
                f"{task or 'the start of a worker'} of {self.pool.name} took down its worker "
                f"{self.deaths[task]} times, the last time with: {_first_line(error)}. Out of memory is the "
                "commonest cause: lower batch_size or unit_rows. What is committed is safe."
            ) from error
        if task is not None:
            self.suspects.append(task)
        if self.actors.pop(actor, None) is not None:
            _LOG.warning("a worker of %s was lost (%s); starting another", self.pool.name, _first_line(error))
            ray.kill(actor)
            self.start_actor()

    def end(self) -> None:
        for actor in self.actors:
            ray.kill(actor)


def _needs(pool: Pool[Any, Any]) -> dict[str, float]:
    return {"CPU": float(pool.num_cpus), "GPU": float(pool.num_gpus)}


def _resources(amounts: Mapping[str, float]) -> str:
    return f"{amounts.get('CPU', 0):g} CPU and {amounts.get('GPU', 0):g} GPU"


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, SoftcaskError):
        return cause
    return ExecutorError(f"a worker failed with {type(cause).__name__}: {cause}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
