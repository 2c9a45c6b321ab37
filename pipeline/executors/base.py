"""What an executor is: it builds workers from a recipe, feeds them tasks, and hands back reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

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
        tasks: What is to be done; safe to do twice.
        num_cpus: CPU cores a worker.
        num_gpus: GPUs a worker, or a fraction of one.
    """

    name: str
    recipe: Recipe[TaskT, ReportT]
    tasks: Sequence[TaskT]
    num_cpus: int
    num_gpus: float


class Executor(Protocol):
    """Runs pools of tasks.

    Attributes:
        name: What a config calls it.
        workers: Workers that the last run used, at most at one time.
    """

    name: str
    workers: int

    def run(self, pools: Sequence[Pool[Any, ReportT]]) -> Iterator[ReportT]:
        """Run every task; reports come as tasks end, in any order.

        Raises:
            SoftcaskError: What a task raised, as it raised it; tasks that were not begun are left.
            ExecutorError: Workers were lost more often than allowed, or cannot be had.
        """
