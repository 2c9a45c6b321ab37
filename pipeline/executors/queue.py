"""What is to be done next, by whom, and what is to be done about what went wrong: the tasks of one pool.

Pure: it knows no cluster and no clock, so that its rules are tested without either. Nothing is kept of a task
that is done or not yet given out, and no step looks at more than one worker but the one taken every second.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from softcask.pipeline.executors.base import Failure, Pool, name_of
from softcask.pipeline.executors.streak import Streak
from softcask.storage_schemas.errors import ExecutorError

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_MEASURED = 99
_FEWEST_MEASURED = 5
_CAREFUL = 3
"""Tasks that fail in a row: before anything new is begun, those are tried again, one at a time."""
_SPOILT = 3
"""Tasks that fail in a row on one worker, while others do well: its device may be beyond use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much is tried.

    Attributes:
        in_flight: Tasks a worker has at one time.
        max_retries: How often a task is run again.
        deadline: Seconds a task may take; `inf` for none, None for `deadline_factor` medians.
        deadline_factor: See there.
        shortest_deadline: Seconds, of one that follows from the median.
        straggling: A task is run twice when it takes longer than so many medians and workers are idle.
    """

    in_flight: int = 2
    max_retries: int = 3
    deadline: float | None = None
    deadline_factor: float = 20.0
    shortest_deadline: float = 600.0
    straggling: float = 3.0


@dataclass(slots=True, eq=False, kw_only=True)
class Unit:
    """A task that workers have, or that is to be run again.

    Attributes:
        number: Its place in the pool.
        task: What is run.
        attempts: How often it went wrong.
        desks: Workers that have it.
        done: Whether one of them did it.
        alone: Whether it may be what takes workers down, so that no other is to be with it.
        failed_at: The worker that it failed on last.
    """

    number: int
    task: Any
    attempts: int = 0
    desks: int = 0
    done: bool = False
    alone: bool = False
    failed_at: Desk | None = None


@dataclass(slots=True, eq=False)
class Desk:
    """What one worker has, in the order it was given; it computes one after the other.

    Attributes:
        units: They.
        since: When it began with the first of them.
        failures: Units that failed here in a row.
        retired: Whether it is to get nothing more.
    """

    units: list[Unit] = field(default_factory=list)
    since: float = 0.0
    failures: int = 0
    retired: bool = False


class PoolQueue:
    """The tasks of one pool.

    Attributes:
        stopped: Why the rest of the pool is given up, once it is.
        done: Tasks that are done.
        retries: Times a task was put back.
        given_up: Tasks that were given up.
        lost: Workers that were lost.
    """

    def __init__(self, pool: Pool[Any, Any], rules: Rules) -> None:
        """Nothing is given out yet."""
        self.stopped: Exception | None = None
        self.done = self.retries = self.given_up = self.lost = 0
        self._pool, self._rules = pool, rules
        self._fresh: Iterator[tuple[int, Any]] = enumerate(pool.tasks)
        self._fresh_left = len(pool.tasks)
        self._again: list[tuple[float, int, Unit]] = []
        self._suspects: list[tuple[float, int, Unit]] = []
        self._twins: deque[Unit] = deque()
        self._under_way = 0
        self._desks: dict[Desk, None] = {}
        self._most_desks = 1
        self._streak = Streak(tasks=len(pool.tasks))
        self._lost_in_a_row = self._failed_in_a_row = 0
        self._seconds: deque[float] = deque(maxlen=_MEASURED)
        self._median: float | None = None

    @property
    def left(self) -> int:
        """Tasks that are not done."""
        return self._fresh_left + len(self._again) + len(self._suspects) + self._under_way

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return self.stopped is not None or not self.left

    @property
    def in_flight(self) -> int:
        """Tasks that workers have."""
        return self._under_way

    def open_desk(self) -> Desk:
        """For a worker that is ready."""
        self._desks[desk := Desk()] = None
        self._most_desks = max(self._most_desks, len(self._desks))
        return desk

    def next_for(self, desk: Desk, now: float) -> Unit | None:
        """What to give to a worker next; None where it has enough, or there is nothing for it."""
        if desk.retired or len(desk.units) >= self._rules.in_flight or self.stopped:
            return None
        if any(unit.alone for unit in desk.units):
            return None
        if (unit := self._choose(desk, now)) is None:
            return None
        if not desk.units:
            desk.since = now
        self._under_way += not unit.desks
        unit.desks += 1
        desk.units.append(unit)
        return unit

    def _choose(self, desk: Desk, now: float) -> Unit | None:
        careful = self._failed_in_a_row >= _CAREFUL
        if careful and self._under_way:
            return None
        if self._again and self._again[0][0] <= now and not self._better_elsewhere(self._again[0][2], desk):
            return heapq.heappop(self._again)[2]
        if self._fresh_left and not (careful and self._again):
            self._fresh_left -= 1
            number, task = next(self._fresh)
            return Unit(number=number, task=task)
        if desk.units:
            return None  # what else there is goes to who is idle
        if self._suspects and self._suspects[0][0] <= now:
            return heapq.heappop(self._suspects)[2]
        while self._twins:
            unit = self._twins.popleft()
            if not unit.done and unit.desks == 1:
                return unit
        return None

    def _better_elsewhere(self, unit: Unit, desk: Desk) -> bool:
        return unit.failed_at is desk and len(self._desks) > 1

    def ended_well(self, desk: Desk, unit: Unit, now: float) -> bool:
        """A worker has done a task; False where another had before, so that its report counts for nothing."""
        self._seconds.append(now - desk.since)
        self._take_back(desk, unit, now)
        desk.failures = self._lost_in_a_row = self._failed_in_a_row = 0
        if unit.done:
            return False
        unit.done = True
        self._under_way -= 1
        self.done += 1
        self._streak.ended_well()
        return True

    def failed(self, desk: Desk, unit: Unit, error: Exception, now: float) -> Failure | None:
        """A task raised; what was given up with that, if anything was."""
        self._take_back(desk, unit, now)
        desk.failures += 1
        self._failed_in_a_row += 1
        unit.failed_at = desk
        if unit.done or unit.desks:
            return None  # its twin tells
        self._under_way -= 1
        return self._put_back(unit, error, now)

    def spoilt(self, desk: Desk) -> bool:
        """Whether a worker should be replaced, because what others can do fails there."""
        return desk.failures >= _SPOILT and self.done > 0

    def lost_worker(
        self, desk: Desk | None, error: Exception, now: float, *, blamed: Collection[Unit] | None = None
    ) -> list[Failure]:
        """A worker is gone, with all that it had.

        Args:
            desk: Its desk; None where it was not ready yet.
            error: What happened, as far as it is known.
            now: The time.
            blamed: Tasks that may have caused it: this attempt counts. None: any that it had may have.

        Returns:
            What was given up with that.
        """
        self.lost += 1
        self._lost_in_a_row += 1
        failures = []
        for unit in self._close(desk):
            if unit.done or unit.desks:
                continue
            self._under_way -= 1
            if blamed is None or unit in blamed or unit.alone:
                unit.alone = True
                failures.append(self._put_back(unit, error, now))
            else:
                self.retries += 1
                heapq.heappush(self._again, (now, unit.number, unit))
        if self._lost_in_a_row > self._rules.max_retries + 2 * self._most_desks:
            self.stopped = ExecutorError(
                f"{self._lost_in_a_row} workers of {self._pool.name} were lost in a row, with no task done "
                f"between, the last time with: {error} What is committed is safe."
            )
        return [failure for failure in failures if failure is not None]

    def overdue(self, now: float) -> list[tuple[Desk, ExecutorError]]:
        """Workers whose task has passed its deadline, with what to tell of it."""
        deadline = self._deadline()
        return [
            (
                desk,
                ExecutorError(
                    f"{name_of(desk.units[0].task)} of {self._pool.name} took longer than its deadline of "
                    f"{deadline:,.0f} s, and its worker was ended (executor.unit_deadline)."
                ),
            )
            for desk in self._desks
            if desk.units and now - desk.since > deadline
        ]

    def tick(self, now: float) -> None:
        """Once a second or so: how long tasks take, and which of them straggle."""
        if len(self._seconds) >= _FEWEST_MEASURED:
            self._median = median(self._seconds)
        self._twins.clear()
        idle = sum(not desk.units and not desk.retired for desk in self._desks)
        if self._median is None or self._fresh_left or not idle:
            return
        slow = self._rules.straggling * self._median
        late = sorted((desk.since, index, desk) for index, desk in enumerate(self._desks) if desk.units)
        for since, _, desk in late:
            if now - since <= slow or len(self._twins) >= idle:
                return
            # Behind a task that straggles the next ones wait.
            self._twins.extend(unit for unit in desk.units if unit.desks == 1 and not unit.alone)

    def _deadline(self) -> float:
        rules = self._rules
        if rules.deadline is not None:
            return rules.deadline
        if self._median is None:
            return float("inf")
        return max(rules.shortest_deadline, rules.deadline_factor * self._median)

    def _take_back(self, desk: Desk, unit: Unit, now: float) -> None:
        desk.units.remove(unit)
        desk.since = now
        unit.desks -= 1

    def _close(self, desk: Desk | None) -> list[Unit]:
        if desk is None:
            return []
        self._desks.pop(desk, None)
        units, desk.units = desk.units, []
        for unit in units:
            unit.desks -= 1
        return units

    def _put_back(self, unit: Unit, error: Exception, now: float) -> Failure | None:
        unit.attempts += 1
        last = unit.attempts > self._rules.max_retries
        if not unit.alone and self._streak.failed(unit.number, error, given_up=last):
            self.stopped = error
            return None
        if last:
            self.given_up += 1
            return Failure(pool=self._pool.name, task=unit.task, error=error, attempts=unit.attempts)
        self.retries += 1
        due = now + min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (unit.attempts - 1))
        heapq.heappush(self._suspects if unit.alone else self._again, (due, unit.number, unit))
        return None
