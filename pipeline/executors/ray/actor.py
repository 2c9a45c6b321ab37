"""What runs in a Ray actor's process: a worker behind calls that wait for its reports."""

from __future__ import annotations

from typing import Any

import ray

from softcask.pipeline.executors.base import Recipe, Worker
from softcask.pipeline.logs import set_up
from softcask.storage_schemas.errors import ExecutorError

EXTRA_THREADS = 3
"""Calls that must never wait behind tasks: to say where it is, to start, to close."""


class _Actor:
    def __init__(self, recipe: Recipe[Any, Any]) -> None:
        self._recipe = recipe
        self._worker: Worker[Any, Any] | None = None

    def place(self) -> str:
        """The node that it runs on."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self) -> None:
        """Build the worker."""
        set_up()
        # Not in __init__: an error raised there would reach the driver as the actor's death, its type lost.
        self._worker = self._recipe.build()

    def run(self, task: Any) -> Any:
        """The report of a task."""
        if self._worker is None:
            raise ExecutorError("the worker was given a task before it was started")
        return self._worker.submit(task).result()

    def close(self) -> None:
        """Finish what is being written."""
        if self._worker is not None:
            self._worker.close()


ACTOR: Any = ray.remote(_Actor)
