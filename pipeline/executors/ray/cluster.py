"""A Ray cluster, as the dispatcher sees it; see `softcask.pipeline.executors.cluster.Cluster`."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorDiedError, NodeDiedError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.executors.capacity import Nodes
from softcask.pipeline.executors.cluster import Event
from softcask.pipeline.executors.ray.actor import ACTOR, EXTRA_THREADS
from softcask.storage_schemas.errors import ExecutorError, SoftcaskError

_LOG = logging.getLogger(__name__)
_NODES_EVERY, _HEAD_EVERY = 2.0, 5.0
_RESERVE = 1.0
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
_RECONNECT_SECONDS = 60.0
"""After so long without its head, Ray ends the driver's process without a word to Python."""


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    """An actor, and what was reserved for it where it needs several GPUs."""

    actor: Any
    group: PlacementGroup | None


_Happened = tuple[_Worker, str, Any, "Future[Any]"]


class RayCluster:
    """Workers are actors. What happens to them arrives in one queue, whatever their number.

    Attributes:
        grows: Whether nodes may join.
    """

    def __init__(self, *, grows: bool) -> None:
        """On the cluster that this process is connected to."""
        self.grows = grows
        self._happened: SimpleQueue[_Happened] = SimpleQueue()
        self._names: dict[str, str] = {}
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._nodes_at = -float("inf")
        host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._head_seen = time.monotonic()
        self._head_is_reachable, self._head_is_lost = self._head_answers(), False

    def now(self) -> float:
        """See `Cluster.now`."""
        return time.monotonic()

    def nodes(self) -> Nodes:
        """See `Cluster.nodes`."""
        # Asked of a head that is gone, this call would not return.
        if self.now() - self._nodes_at >= _NODES_EVERY and (
            not self._head_is_reachable or self._head_answers()
        ):
            self._nodes_at, alive = self.now(), [node for node in ray.nodes() if node["Alive"]]
            self._names = {
                node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in alive
            }
            self._nodes = {self._names[node["NodeID"]]: node["Resources"] for node in alive}
        return self._nodes

    def start(self, pool: Pool[Any, Any], in_flight: int) -> _Worker:
        """See `Cluster.start`; several GPUs are reserved before other workers can take one of them."""
        self._await_head(at_once=True)
        needs: dict[str, Any] = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
        if pool.memory_bytes:
            needs["memory"] = pool.memory_bytes
        group = _reserve(pool) if pool.num_gpus > 1 else None
        if group is not None:
            needs["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group)
        actor = ACTOR.options(max_concurrency=in_flight + EXTRA_THREADS, **needs).remote(pool.recipe)
        worker = _Worker(actor, group)
        self._expect(actor.place.remote(), worker, "placed")
        self._expect(actor.start.remote(), worker, "ready")
        return worker

    def submit(self, worker: _Worker, unit: Any, task: Any) -> None:
        """See `Cluster.submit`."""
        self._expect(worker.actor.run.remote(task), worker, "done", unit)

    def wait(self, seconds: float) -> Sequence[Event]:
        """See `Cluster.wait`."""
        self._await_head()
        happened: list[_Happened] = []
        with contextlib.suppress(Empty):
            happened.append(self._happened.get(timeout=seconds))
            while True:
                happened.append(self._happened.get_nowait())
        return [self._event(*each) for each in happened]

    def kill(self, worker: _Worker) -> None:
        """See `Cluster.kill`."""
        if self._head_is_lost:
            return  # its actors end with it, and this call might not return
        with contextlib.suppress(RayError):
            ray.kill(worker.actor)
        if worker.group is not None:
            with contextlib.suppress(RayError):
                remove_placement_group(worker.group)

    def close(self, workers: Iterable[_Worker], seconds: float) -> None:
        """See `Cluster.close`."""
        if self._head_is_lost:
            return  # there is no time: Ray is about to end this process
        if closing := [worker.actor.close.remote() for worker in workers]:
            ray.wait(closing, num_returns=len(closing), timeout=seconds)

    def _expect(self, call: Any, worker: _Worker, kind: str, unit: Any = None) -> None:
        """Have the end of a call put into the queue; to wait for all calls costs more the more there are."""
        call.future().add_done_callback(lambda future: self._happened.put((worker, kind, unit, future)))

    def _event(self, worker: _Worker, kind: Any, unit: Any, ended: Future[Any]) -> Event:
        error = ended.exception()
        if error is None:
            value = ended.result()
            if kind == "placed":
                value = self._names.get(value, value)
            return Event(worker=worker, kind=kind, unit=unit, value=value)
        if isinstance(error, RayTaskError):
            return Event(worker=worker, kind="failed", unit=unit, error=_cause(error))
        return Event(
            worker=worker, kind="lost", error=ExecutorError(_because(error)), with_node=_with_its_node(error)
        )

    def _await_head(self, *, at_once: bool = False) -> None:
        """Nothing is asked of a head that does not answer: such calls do not return.

        Raises:
            ExecutorError: It has not answered for so long that Ray is about to end this process.
        """
        unseen = 0.0 if at_once else _HEAD_EVERY
        while self._head_is_reachable and self.now() - self._head_seen >= unseen:
            if self._head_answers():
                self._head_seen = self.now()
                return
            silent = self.now() - self._head_seen
            self._head_is_lost = silent >= 0.75 * float(os.environ.get(_RECONNECT, _RECONNECT_SECONDS))
            if self._head_is_lost:
                raise ExecutorError(
                    f"the head of the Ray cluster at {self._head[0]}:{self._head[1]} has not answered for "
                    f"{silent:.0f} s; it is gone, and with it this run. What is committed is safe: start the "
                    "cluster and run the same command to go on."
                )
            _LOG.warning("the head of the Ray cluster does not answer since %.0f s", silent)
            time.sleep(1.0)

    def _head_answers(self) -> bool:
        try:
            socket.create_connection(self._head, timeout=2.0).close()
        except OSError:
            return False
        return True


def _reserve(pool: Pool[Any, Any]) -> PlacementGroup:
    """All that a worker needs, on one node."""
    bundle = {"CPU": float(pool.num_cpus), "GPU": float(pool.num_gpus)}
    if pool.memory_bytes:
        bundle["memory"] = float(pool.memory_bytes)
    group: PlacementGroup = placement_group([bundle], strategy="STRICT_PACK")
    group.wait(_RESERVE)
    return group


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, SoftcaskError):
        return cause
    return ExecutorError(f"a worker failed with {type(cause).__name__}: {cause}")


def _with_its_node(error: BaseException) -> bool:
    preempted = isinstance(error, ActorDiedError) and error.preempted
    return preempted or isinstance(error, NodeDiedError) or "its node has died" in str(error)


def _because(error: BaseException) -> str:
    """What Ray says of an actor's death, without its own advice, which is long and not for us."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    told = " ".join(lines[1:] if len(lines) > 1 else lines) or type(error).__name__
    told = told.partition(" Some common causes")[0].strip().rstrip(".")
    if _with_its_node(error):
        return f"{told}."
    return f"{told}. Out of memory is the commonest cause: lower batch_size or unit_rows."
