"""The section `[executor]` of a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError


def _absolute(folder: str) -> str:
    if not Path(folder).is_absolute():
        raise ConfigError(f"expected a path from the root on, as every node has it, found {folder!r}")
    return folder


class ExecutorOptions(Options):
    """`[executor]`: where the work is done; never changes what is stored.

    Attributes:
        kind: `ray`, or `serial`: this process alone, without Ray.
        workers: Actors a pool of teachers; None: as many as fit.
        address: Ray cluster; `local` starts one here for this run.
        in_flight: Tasks given to an actor at once, so that it never waits for the next.
        max_retries: How often a unit is run again when its worker died; an error of its own ends the run.
        start_timeout: Seconds to wait for a cluster to have room for the first worker.
        other_drivers: What is done where another driver is at work on the store: `cooperate`, both label,
            each what the other has not; `refuse`, the second does not begin, whichever of the two wants that.
        shared_paths: Folders, absolute, that every node of the cluster sees as the same: network disks. Where
            a cluster has several nodes, a store that is a path must lie in one; what lies there is not sent.
        object_store_mb: Memory of a local cluster's object store, MB; only receipts pass through it.
    """

    kind: Literal["ray", "serial"] = "ray"
    workers: int | None = Field(default=None, ge=1)
    address: str = "local"
    in_flight: int = Field(default=2, ge=1, le=8)
    max_retries: int = Field(default=3, ge=0)
    start_timeout: float = Field(default=600.0, gt=0)
    other_drivers: Literal["cooperate", "refuse"] = "cooperate"
    shared_paths: tuple[Annotated[str, AfterValidator(_absolute)], ...] = ()
    object_store_mb: int = Field(default=256, ge=80)
