"""A cluster in virtual time: workers with no process, tasks with a duration, faults at stated moments."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from softcask.pipeline.executors.base import Failure, Pool
from softcask.pipeline.executors.capacity import Needs, Nodes, _Room
from softcask.pipeline.executors.cluster import Event
from softcask.pipeline.executors.dispatch import Dispatcher
from softcask.pipeline.executors.queue import Rules
from softcask.storage_schemas.errors import ExecutorError


@dataclass(slots=True, eq=False)
class MadeUpWorker:
    pool: Pool[Any, Any]
    number: int
    node: str | None = None
    alive: bool = True
    free_at: float = 0.0
    seen: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class MadeUpCluster:
    """Nodes are resources by name; a worker is placed where it fits, in the order they were asked for.

    Attributes:
        seconds: How long a worker takes for a task; an exception is raised by it; None: the worker dies.
        build: Seconds to build a worker, or what is raised by that.
    """

    standing: dict[str, dict[str, float]]
    seconds: Callable[[MadeUpWorker, Any], float | Exception | None] = lambda *_: 1.0
    build: Callable[[MadeUpWorker], float | Exception] = lambda _: 1.0
    grows: bool = True
    clock: float = 0.0
    workers: list[MadeUpWorker] = field(default_factory=list)
    closed: list[MadeUpWorker] = field(default_factory=list)
    _queue: list[tuple[float, int, Callable[[], Event | None]]] = field(default_factory=list)
    _number: int = 0

    def now(self) -> float:
        return self.clock

    def nodes(self) -> Nodes:
        return dict(self.standing)

    def at(self, when: float, act: Callable[[], Any]) -> None:
        """Have something happen to the cluster."""
        self._push(when, lambda: act() and None)

    def start(self, pool: Pool[Any, Any], in_flight: int) -> MadeUpWorker:
        worker = MadeUpWorker(pool, len(self.workers))
        self.workers.append(worker)
        self._place()
        return worker

    def submit(self, worker: MadeUpWorker, unit: Any, task: Any) -> None:
        worker.seen.append(task)
        takes = self.seconds(worker, task)
        if takes is None:
            self._push(max(self.clock, worker.free_at) + 0.5, lambda: self._die(worker))
            return
        if isinstance(takes, Exception):
            error = takes
            end = lambda: Event(worker=worker, kind="failed", unit=unit, error=error)  # noqa: E731
            takes = 0.1
        else:
            end = lambda: Event(worker=worker, kind="done", unit=unit, value=task * 10)  # noqa: E731
        worker.free_at = max(self.clock, worker.free_at) + takes
        self._push(worker.free_at, lambda: end() if worker.alive else None)

    def wait(self, seconds: float) -> Sequence[Event]:
        until = self.clock + seconds
        while self._queue and self._queue[0][0] <= until:
            self.clock, _, act = heapq.heappop(self._queue)
            if (event := act()) is not None:
                return [event]
        self.clock = until
        return ()

    def kill(self, worker: MadeUpWorker) -> None:
        worker.alive = False
        self._place()

    def close(self, workers: Iterable[MadeUpWorker], seconds: float) -> None:
        self.closed += workers

    def lose(self, node: str) -> None:
        """A node is gone, and with it its workers."""
        del self.standing[node]
        for worker in self.at_work():
            if worker.node == node:
                worker.alive = False
                error = ExecutorError("its node has died")
                event = Event(worker=worker, kind="lost", error=error, with_node=True)
                self._push(self.clock, lambda event=event: event)

    def join(self, node: str, **resources: float) -> None:
        self.standing[node] = resources
        self._place()

    def at_work(self, pool: str = "") -> list[MadeUpWorker]:
        """Workers that have their room now."""
        alive = [worker for worker in self.workers if worker.alive and worker.node is not None]
        return [worker for worker in alive if pool in ("", worker.pool.name)]

    def _die(self, worker: MadeUpWorker) -> Event | None:
        if not worker.alive:
            return None
        worker.alive = False
        return Event(worker=worker, kind="lost", error=ExecutorError("its process has died."))

    def _place(self) -> None:
        rooms = {name: _Room.of(node) for name, node in self.standing.items()}
        for worker in self.at_work():
            if worker.node in rooms:
                assert rooms[worker.node].take(Needs.of(worker.pool))
        for worker in self.workers:
            if not worker.alive or worker.node is not None:
                continue
            worker.node = next(
                (name for name, room in rooms.items() if room.take(Needs.of(worker.pool))), None
            )
            if worker.node is not None:
                self._build(worker)

    def _build(self, worker: MadeUpWorker) -> None:
        placed = Event(worker=worker, kind="placed", value=worker.node)
        self._push(self.clock, lambda: placed if worker.alive else None)
        takes = self.build(worker)
        if isinstance(takes, Exception):
            ended = Event(worker=worker, kind="failed", error=takes)
            takes = 0.5
        else:
            ended = Event(worker=worker, kind="ready")
        self._push(self.clock + takes, lambda: ended if worker.alive else None)

    def _push(self, when: float, act: Callable[[], Event | None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (when, self._number, act))


class NoRecipe:
    def build(self) -> Any:
        raise AssertionError("no worker is to be built")


def pool(name: str, tasks: Sequence[int], *, cpus: int = 1, gpus: float = 0) -> Pool[int, int]:
    return Pool(name=name, recipe=NoRecipe(), tasks=tasks, num_cpus=cpus, num_gpus=gpus)


@dataclass(slots=True)
class Outcome:
    reports: list[int]
    failures: list[Failure]
    dispatcher: Dispatcher


def run(cluster: MadeUpCluster, *pools: Pool[int, int], most: int | None = None, **rules: Any) -> Outcome:
    """Run to the end; virtual time must not pass a day."""
    dispatcher = Dispatcher(pools, cluster, Rules(**rules), most=most)
    reports, failures = [], []
    cluster.at(86_400, lambda: 1 / 0)
    for report in dispatcher.reports():
        (failures if isinstance(report, Failure) else reports).append(report)
    return Outcome(reports, failures, dispatcher)
