"""Ray Data as an executor of numbered work: it is handed numbers, and hands back those that are done.

It schedules, scales out and tries again where a node is lost. What a number stands for, and that doing it
twice does no harm, is the recipe's affair; no row crosses Ray's object store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import ray
import ray.data
from ray.exceptions import RayError

from softcask.pipeline.executors.options import ExecutorOptions
from softcask.pipeline.executors.ray.connection import connected
from softcask.storage_schemas.errors import ExecutorError, SoftcaskError


class NumberedRecipe(Protocol):
    """Builds, in whatever process it is sent to, what does the work of a number; picklable."""

    def build(self) -> Callable[[int], Any]:
        """What does it."""


class _Work:
    """Runs in Ray: built by the first number that comes, so that its error comes back as that number's."""

    def __init__(self, recipe: NumberedRecipe) -> None:
        self._recipe = recipe
        self._work: Callable[[int], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._work = self._work or self._recipe.build()
            self._work(int(row["item"]))
        except SoftcaskError as error:
            return row | {"refused": f"{error}"}
        return row | {"refused": ""}


def results(recipe: NumberedRecipe, numbers: Sequence[int], options: ExecutorOptions) -> Iterator[int]:
    """Do the work of each number on a cluster, or on one that is started here and ended afterwards.

    Args:
        recipe: Does it.
        numbers: Which; at least one.
        options: Which cluster, and how many workers at most.

    Yields:
        Numbers whose work is done, in any order.

    Raises:
        ExecutorError: There is no cluster, or the work of a number was refused or failed.
    """
    with connected(options.address, object_store_mb=options.object_store_mb):
        _quieten()
        fits = max(1, int(ray.cluster_resources().get("CPU", 1)))
        most = min(options.workers or fits, len(numbers))
        work: Any = _Work  # a class, which Ray builds once a worker; its hints know only functions
        rows = ray.data.from_items(list(numbers), override_num_blocks=len(numbers)).map(
            work, fn_constructor_args=(recipe,), concurrency=(1, most), num_cpus=1
        )
        try:
            for row in rows.iter_rows():
                if row["refused"]:
                    raise ExecutorError(row["refused"])
                yield int(row["item"])
        except RayError as error:
            raise ExecutorError(
                f"the work could not be done: {error}. What is done is kept; run this again."
            ) from error


def _quieten() -> None:
    """Progress is shown by whoever asked for the work."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
