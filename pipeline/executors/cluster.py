"""What the dispatcher asks of a cluster, and what a cluster tells it: Ray's, or one that a test makes up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.executors.capacity import Nodes

Handle = Any
"""A worker, as a cluster knows it; hashable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a worker.

    Attributes:
        worker: Which.
        kind: `placed` (it has its room), `ready` (it is built), `done` (a task), `failed` (a task raised, or
            building it did), `lost` (it is gone, with all that it had).
        unit: What was given to `submit`; None where it is about no task.
        value: The node, of `placed`; the report, of `done`.
        error: Of `failed` and `lost`.
        with_node: Of `lost`: whether its whole node is gone, so that no task is to blame.
    """

    worker: Handle
    kind: Literal["placed", "ready", "done", "failed", "lost"]
    unit: Any = None
    value: Any = None
    error: Exception | None = None
    with_node: bool = False


class Cluster(Protocol):
    """Workers come and go; nothing here waits for one of them.

    Attributes:
        grows: Whether nodes may join.
    """

    grows: bool

    def now(self) -> float:
        """Seconds, since whenever."""

    def nodes(self) -> Nodes:
        """Nodes that are alive."""

    def start(self, pool: Pool[Any, Any], in_flight: int) -> Handle:
        """Ask for a worker; it tells when it is placed and when it is ready."""

    def submit(self, worker: Handle, unit: Any, task: Any) -> None:
        """Give a task to a worker that is ready."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; as soon as something has, or nothing after some time.

        Raises:
            ExecutorError: The cluster is lost.
        """

    def kill(self, worker: Handle) -> None:
        """End a worker at once; of one that is gone, nothing."""

    def close(self, workers: Iterable[Handle], seconds: float) -> None:
        """Let workers finish what they write, but no longer than that."""
