"""The workers of one pool: asked for, fed, replaced when they are lost, and ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from softcask.pipeline.executors.base import Failure, Pool, name_of
from softcask.pipeline.executors.capacity import Needs
from softcask.pipeline.executors.cluster import Cluster, Event, Handle
from softcask.pipeline.executors.queue import Desk, PoolQueue, Rules
from softcask.storage_schemas.errors import ExecutorError

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 60.0


@dataclass(slots=True, eq=False)
class Seat:
    """A worker.

    Attributes:
        worker: As the cluster knows it.
        node: Where it runs; None while it waits for room.
        desk: What it has; None while it is not ready.
    """

    worker: Handle
    node: str | None = None
    desk: Desk | None = None


@dataclass(slots=True, eq=False)
class Crew:
    """One pool under way.

    Attributes:
        pool: What is to be done.
        cluster: Where.
        rules: How much is tried.
        seats: Workers by handle, asked for or at work.
        target: How many there should be.
        waiting: What is missing, while there is no worker; for people.
        waiting_since: Since when.
        over: Whether it is finished or given up, and its workers are gone.
    """

    pool: Pool[Any, Any]
    cluster: Cluster
    rules: Rules
    queue: PoolQueue = field(init=False)
    needs: Needs = field(init=False)
    seats: dict[Handle, Seat] = field(default_factory=dict)
    target: int = 0
    waiting: str = ""
    waiting_since: float | None = None
    over: bool = False
    _was_ready: bool = False
    _bad_starts: int = 0
    _next_start: float = 0.0

    def __post_init__(self) -> None:
        """Nothing is asked for yet."""
        self.queue = PoolQueue(self.pool, self.rules)
        self.needs = Needs.of(self.pool)

    @property
    def placed(self) -> int:
        """Workers that have room."""
        return sum(seat.node is not None for seat in list(self.seats.values()))

    @property
    def ready(self) -> int:
        """Workers that can work."""
        return sum(seat.desk is not None for seat in list(self.seats.values()))

    def in_the_way_of(self, other: Crew) -> bool:
        """Whether another pool may wait for what this one's workers hold."""
        return self is not other and (self.needs.gpus > 0 or not other.needs.gpus)

    def ask(self, count: int) -> None:
        """Ask for as many workers as there are fewer than `count`."""
        if self.over or self.cluster.now() < self._next_start:
            return
        for _ in range(min(count, self.queue.left) - len(self.seats)):
            worker = self.cluster.start(self.pool, self.rules.in_flight)
            self.seats[worker] = Seat(worker)

    def give_back(self, count: int) -> None:
        """Do with at most `count` workers: those without room go at once, others when they are done."""
        for seat in [seat for seat in self.seats.values() if seat.node is None][
            max(0, count - self.placed) :
        ]:
            self._remove(seat)
        working = [seat for seat in self.seats.values() if seat.desk is None or not seat.desk.retired]
        for seat in working[count:]:
            if seat.desk is None or not seat.desk.units:
                self._remove(seat)
            else:
                seat.desk.retired = True

    def take(self, event: Event) -> Iterator[Any]:
        """Do what an event asks for; reports, and what was given up."""
        seat = self.seats.get(event.worker)
        if seat is None or self.over:
            return  # of a worker that is gone already
        if event.kind == "placed":
            seat.node = str(event.value)
        elif event.kind == "ready":
            self._was_ready, self._bad_starts = True, 0
            seat.desk = self.queue.open_desk()
        elif event.kind == "lost":
            yield from self._lose(seat, event)
        elif seat.desk is None:
            self._not_built(seat, event.error or ExecutorError("a worker could not be built"))
        elif event.kind == "done":
            if self.queue.ended_well(seat.desk, event.unit, self.cluster.now()):
                yield event.value
        else:
            yield from self._fail(seat, seat.desk, event)
        self.feed(seat)
        yield from self.finish()

    def tick(self) -> Iterator[Failure]:
        """Once a second or so: deadlines, stragglers, what may be run again now."""
        now = self.cluster.now()
        for desk, error in self.queue.overdue(now):
            seat = next(seat for seat in self.seats.values() if seat.desk is desk)
            _LOG.warning("%s", error)
            self._remove(seat)
            yield from self.queue.lost_worker(desk, error, now, blamed=desk.units[:1])
        self.queue.tick(now)
        for seat in list(self.seats.values()):
            self.feed(seat)
        yield from self.finish()

    def feed(self, seat: Seat) -> None:
        """Give a worker as much as it may have."""
        if seat.desk is None or seat.worker not in self.seats:
            return
        while (unit := self.queue.next_for(seat.desk, self.cluster.now())) is not None:
            self.cluster.submit(seat.worker, unit, unit.task)
        if seat.desk.retired and not seat.desk.units:
            self._remove(seat)

    def finish(self) -> Iterator[Failure]:
        """Let the workers go when there is nothing left to do."""
        if self.over or not self.queue.finished:
            return
        if (error := self.queue.stopped) is not None:
            yield from self.give_up(error)
        self.end()

    def give_up(self, error: Exception) -> Iterator[Failure]:
        """End the pool, whatever is left of it."""
        _LOG.warning("%s is left, with %d tasks not done: %s", self.pool.name, self.queue.left, error)
        self.end()
        yield Failure(pool=self.pool.name, task=None, error=error, attempts=1)

    def end(self) -> None:
        """No more of it."""
        self.over, self.waiting, self.target = True, "", 0
        for seat in list(self.seats.values()):
            self._remove(seat)

    def _lose(self, seat: Seat, event: Event) -> Iterator[Failure]:
        error = event.error or ExecutorError("a worker was lost")
        had = seat.desk.units if seat.desk else []
        names = ", ".join(name_of(unit.task) for unit in had) or "nothing"
        _LOG.warning("a worker of %s was lost, which had %s: %s", self.pool.name, names, error)
        self._remove(seat)
        if seat.desk is None:
            self._pause()
        blamed = () if event.with_node else None
        yield from self.queue.lost_worker(seat.desk, error, self.cluster.now(), blamed=blamed)

    def _not_built(self, seat: Seat, error: Exception) -> None:
        """On another node it may be; but where none ever was, it is the teacher."""
        self._remove(seat)
        self._pause()
        if not self._was_ready and (not self.placed or self._bad_starts > self.rules.max_retries):
            self.queue.stopped = error
        else:
            _LOG.warning("a worker of %s could not be built on %s: %s", self.pool.name, seat.node, error)

    def _fail(self, seat: Seat, desk: Desk, event: Event) -> Iterator[Failure]:
        error = event.error or ExecutorError("a task failed")
        _LOG.warning("%s of %s failed: %s", name_of(event.unit.task), self.pool.name, error)
        if (failure := self.queue.failed(desk, event.unit, error, self.cluster.now())) is not None:
            yield failure
        if self.queue.spoilt(desk):
            _LOG.warning("a worker of %s on %s fails at all it is given; starting another", *self._at(seat))
            self._remove(seat)
            yield from self.queue.lost_worker(desk, error, self.cluster.now(), blamed=())

    def _at(self, seat: Seat) -> tuple[str, str | None]:
        return self.pool.name, seat.node

    def _pause(self) -> None:
        """A worker that does not come to work is not asked for again and again."""
        self._next_start = self.cluster.now() + min(_LONGEST_PAUSE, 2.0**self._bad_starts)
        self._bad_starts += 1

    def _remove(self, seat: Seat) -> None:
        if self.seats.pop(seat.worker, None) is not None:
            self.cluster.kill(seat.worker)
