"""All pools of a run at once: who gets how many workers, and what is said when there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool
from softcask.pipeline.executors.capacity import Needs, Nodes, allot, fits, has, lacking
from softcask.pipeline.executors.cluster import Cluster, Handle
from softcask.pipeline.executors.crew import Crew
from softcask.pipeline.executors.queue import Rules
from softcask.storage_schemas.errors import ExecutorError

_LOG = logging.getLogger(__name__)
_LOOK_EVERY = 1.0
_SAY_AFTER, _SAY_EVERY = 10.0, 30.0
_SETTLED_AFTER = 30.0
"""Seconds after which it is no longer believed that what fits the nodes on paper will be placed."""
_SLOW_START = 120.0
"""Seconds that a process may take to start on a busy node, before it is said that there is no room."""
_GRACE = 15.0
_REMEMBERED = 3
"""Lost nodes that are named: on spot nodes there are ever more of them."""


class Dispatcher:
    """Runs pools.

    Attributes:
        workers: Workers that were ready, at most at one time.
    """

    def __init__(
        self,
        pools: Sequence[Pool[Any, Any]],
        cluster: Cluster,
        rules: Rules,
        *,
        most: int | None = None,
        patience: float = 600.0,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            pools: What to run.
            cluster: Where.
            rules: How much is tried.
            most: Workers a pool, asked for even where there is no room, so that a cluster may grow; None: as
                many as fit.
            patience: Seconds that a pool waits for room for a first worker.
        """
        self.workers = 0
        self._cluster, self._most, self._patience = cluster, most, patience
        self._crews = [Crew(pool, cluster, rules) for pool in pools if len(pool.tasks)]
        self._crews.sort(key=lambda crew: crew.needs, reverse=True)
        self._crew_of: dict[Handle, Crew] = {}
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._gone: dict[str, Mapping[str, float]] = {}
        self._allotted: tuple[tuple[Nodes, list[tuple[Needs, int]]], list[int]] | None = None
        self._unsettled_since: float | None = None

    def reports(self) -> Iterator[Any]:
        """Run every task; reports and failures, as they come."""
        try:
            next_look = self._cluster.now()
            while any(not crew.over for crew in self._crews):
                if self._cluster.now() >= next_look:
                    yield from self._look()
                    next_look = self._cluster.now() + _LOOK_EVERY
                for event in self._cluster.wait(max(0.0, next_look - self._cluster.now())):
                    crew = self._crew_of.get(event.worker)
                    if crew is None:
                        continue
                    yield from crew.take(event)
                    if event.kind == "ready":
                        self.workers = max(self.workers, sum(crew.ready for crew in self._crews))
                    elif crew.over or event.kind == "lost":
                        next_look = self._cluster.now()
        except BaseException:
            self._end()
            raise
        finally:
            for crew in self._crews:
                crew.end()

    def state(self) -> ExecutorState:
        """Where it stands."""
        queues = [crew.queue for crew in self._crews]
        ready = sum(crew.ready for crew in self._crews)
        return ExecutorState(
            workers=ready,
            starting=sum(len(crew.seats) for crew in self._crews) - ready,
            in_flight=sum(queue.in_flight for queue in queues),
            done=sum(queue.done for queue in queues),
            retries=sum(queue.retries for queue in queues),
            given_up=sum(queue.given_up for queue in queues),
            lost=sum(queue.lost for queue in queues),
            waiting=tuple(crew.waiting for crew in self._crews if crew.waiting),
        )

    def _end(self) -> None:
        """Somebody wants this to end: what is being written is finished, but not waited for for ever."""
        at_work = [seat for crew in self._crews for seat in crew.seats.values() if seat.desk is not None]
        self._cluster.close([seat.worker for seat in at_work if seat.desk and seat.desk.units], _GRACE)

    def _look(self) -> Iterator[Failure]:
        nodes = dict(self._cluster.nodes())
        self._gone |= {name: self._nodes[name] for name in self._nodes.keys() - nodes.keys()}
        gone = [(name, node) for name, node in self._gone.items() if name not in nodes]
        self._gone = dict(gone[-_REMEMBERED:])
        self._nodes = nodes
        active = [crew for crew in self._crews if not crew.over]
        for crew in active:
            yield from crew.tick()
        active = [crew for crew in active if not crew.over]
        self._staff(active)
        for crew in active:
            yield from self._watch(crew, active)

    def _staff(self, active: Sequence[Crew]) -> None:
        """Ask for the workers that fit all at once; for more only when those have their room."""
        most = [min(crew.queue.left, self._most or crew.queue.left) for crew in active]
        for crew, count in zip(active, self._counts(active, most), strict=True):
            crew.target = count
        settled = self._settled(active)
        for crew, wanted in zip(active, most, strict=True):
            if settled:
                crew.ask(max(crew.target, 1 if self._most is None else wanted))
            else:
                crew.give_back(crew.target)
                crew.ask(crew.target)
        self._crew_of = {worker: crew for crew in active for worker in crew.seats}

    def _counts(self, active: Sequence[Crew], most: Sequence[int]) -> list[int]:
        """How many workers of each fit; worked out anew only where something has changed."""
        asked = (self._nodes, [(crew.needs, count) for crew, count in zip(active, most, strict=True)])
        if self._allotted is None or self._allotted[0] != asked:
            self._allotted = asked, allot(*asked)
        return self._allotted[1]

    def _settled(self, active: Sequence[Crew]) -> bool:
        now = self._cluster.now()
        if all(crew.placed >= crew.target for crew in active):
            self._unsettled_since = None
        elif self._unsettled_since is None:
            self._unsettled_since = now
        return self._unsettled_since is None or now - self._unsettled_since >= _SETTLED_AFTER

    def _watch(self, crew: Crew, active: Sequence[Crew]) -> Iterator[Failure]:
        """Lost capacity shows in a cluster as waiting without end."""
        now = self._cluster.now()
        if crew.placed:
            crew.waiting, crew.waiting_since = "", None
            return
        possible = fits(self._nodes, crew.needs)
        others = [other.pool.name for other in active if other.placed and other.in_the_way_of(crew)]
        if crew.waiting_since is None or (possible and others):
            crew.waiting_since = now
        waited = now - crew.waiting_since
        wants = f"{crew.pool.name} needs {self._missing(crew, possible)}"
        patience = max(self._patience, _SLOW_START) if possible else self._patience
        if waited >= patience or not (possible or self._cluster.grows):
            advice = "Add nodes, lower num_cpus or num_gpus of its teachers, or raise executor.start_timeout."
            yield from crew.give_up(ExecutorError(f"{wants}; waited {waited:,.0f} s. {advice}"))
        elif possible and others:
            self._say(crew, f"{wants}; it starts when {', '.join(others)} leaves room")
        elif not possible or waited >= _SAY_AFTER:
            step = waited // _SAY_EVERY * _SAY_EVERY or waited // _SAY_AFTER * _SAY_AFTER
            self._say(crew, f"{wants}; waiting {step:,.0f} s of {patience:,.0f} s")

    def _say(self, crew: Crew, waiting: str) -> None:
        """To the log only what it did not say before."""
        if waiting != crew.waiting:
            crew.waiting = waiting
            _LOG.warning("%s", waiting)

    def _missing(self, crew: Crew, possible: bool) -> str:
        if possible:
            return f"{crew.needs}, and has found no room yet (cluster has {has(self._nodes)})"
        return lacking(self._nodes, self._gone, crew.needs)
