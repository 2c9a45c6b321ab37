"""What an executor is: it builds workers from a recipe, feeds them tasks, and hands back reports.

Anything may fail, at any time and more than once. A task that fails is run again a few times and is then
given up: that is reported like all else, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from softcask.pipeline.executors.metrics import Meter

TaskT = TypeVar("TaskT")
TaskT_contra = TypeVar("TaskT_contra", contravariant=True)
ReportT = TypeVar("ReportT")


class Worker(Protocol[TaskT_contra, ReportT]):
    """Runs tasks in one process, in the order they are submitted."""

    def submit(self, task: TaskT_contra) -> Future[ReportT]:
        """Start a task."""

    def close(self) -> None:
        """End soon: what is being written is finished, what is not yet computed is given up."""


class Recipe(Protocol[TaskT_contra, ReportT]):
    """Builds a worker in whatever process it is sent to; picklable."""

    def build(self) -> Worker[TaskT_contra, ReportT]:
        """The worker, ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Generic[TaskT, ReportT]):
    """Tasks that one kind of worker runs.

    Attributes:
        name: For messages.
        recipe: Builds a worker.
        tasks: What is to be done; safe to do twice. Gone through once, and never copied: it may be lazy.
        num_cpus: CPU cores a worker.
        num_gpus: GPUs a worker, all on one node, or a fraction of one.
        memory_bytes: Host memory a worker is known to need; 0 where that is not known.
    """

    name: str
    recipe: Recipe[TaskT, ReportT]
    tasks: Sequence[TaskT]
    num_cpus: int
    num_gpus: float
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an executor has given up.

    Attributes:
        pool: Name of the pool.
        task: The task; None where the rest of the pool was given up: its workers cannot be had, or every task
            fails alike.
        error: The last thing that went wrong.
        attempts: How often it was tried.
    """

    pool: str
    task: Any | None
    error: Exception
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorState:
    """Where a run stands now, for people.

    Attributes:
        workers: Workers that are ready.
        starting: Workers that wait for room, or are being built.
        in_flight: Tasks that workers have.
        done: Tasks that are done.
        retries: Times a task was put back to be run again.
        given_up: Tasks that were given up.
        lost: Workers that were lost.
        waiting: A line a pool that has no worker: what it needs, what there is, how long it has waited.
    """

    workers: int = 0
    starting: int = 0
    in_flight: int = 0
    done: int = 0
    retries: int = 0
    given_up: int = 0
    lost: int = 0
    waiting: tuple[str, ...] = ()


def name_of(task: Any) -> str:
    """What to call a task in messages."""
    return f"unit {task.unit}" if hasattr(task, "unit") else str(task)


class Executor(Protocol):
    """Runs pools of tasks.

    Attributes:
        name: What a config calls it.
        workers: Workers that the last run used, at most at one time.
    """

    name: str
    workers: int

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT | Failure]:
        """Run every task; reports come as tasks end, in any order, and among them what was given up.

        Raises:
            ExecutorError: There is no cluster, or its head is lost.
        """

    def state(self) -> ExecutorState:
        """Where the run stands; from any thread."""

    def meter(self) -> Meter:
        """Where metrics of what runs now are to go."""
