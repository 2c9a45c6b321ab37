"""The section `[executor]` of a run file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from softcask.pipeline.parts import Options


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
        object_store_mb: Memory of a local cluster's object store, MB; only receipts pass through it.
    """

    kind: Literal["ray", "serial"] = "ray"
    workers: int | None = Field(default=None, ge=1)
    address: str = "local"
    in_flight: int = Field(default=2, ge=1, le=8)
    max_retries: int = Field(default=3, ge=0)
    start_timeout: float = Field(default=600.0, gt=0)
    other_drivers: Literal["cooperate", "refuse"] = "cooperate"
    object_store_mb: int = Field(default=256, ge=80)
