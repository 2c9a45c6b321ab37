"""Executors by kind; Ray is imported only where it is asked for."""

from __future__ import annotations

import os

from softcask.pipeline.executors.base import Executor
from softcask.pipeline.executors.options import ExecutorOptions
from softcask.storage_schemas.errors import ExecutorError


def executor_from(options: ExecutorOptions) -> Executor:
    """The executor that a run's config asks for.

    Raises:
        ExecutorError: Ray is asked for and not installed.
    """
    if options.kind == "serial":
        from softcask.pipeline.executors.serial import SerialExecutor

        return SerialExecutor(in_flight=options.in_flight, max_retries=options.max_retries)
    # Ray prints what its raylets say of a worker's death among the driver's output, pages of it. What
    # happened is in the error that the executor tells of; who wants the rest sets this otherwise.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        from softcask.pipeline.executors.ray import RayExecutor
    except ModuleNotFoundError as error:
        raise ExecutorError(
            f'executor.kind = "ray" needs Ray: {error}. Install softcask[engine], or give kind = "serial".'
        ) from error
    return RayExecutor(
        address=options.address,
        max_workers=options.workers,
        rules=options.rules(),
        start_timeout=options.start_timeout,
        object_store_mb=options.object_store_mb,
    )
