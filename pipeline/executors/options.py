"""The section `[executor]` of a run file."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from softcask.pipeline.executors.queue import Rules
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
        workers: Actors a pool of teachers, asked for even where there is no room yet, so that a cluster that
            scales does; None: as many as fit the nodes there are.
        address: Ray cluster; `local` starts one here for this run.
        in_flight: Units given to an actor at once, so that it never waits for the next.
        max_retries: How often a unit is run again, after an error of its own or when its worker died.
        unit_deadline: Seconds a unit may take before its worker is ended and it is run again; `auto`: twenty
            times the median so far, and ten minutes at least; `off`.
        straggling: Near the end, a unit that takes longer than so many medians is run a second time by an
            idle worker; the first that ends counts.
        start_timeout: Seconds that teachers wait for room for a first worker, at the start and whenever they
            lost all; a cluster that scales needs them to bring up a node.
        other_drivers: What is done where another driver is at work on the store: `cooperate`, both label,
            each what the other has not; `refuse`, the second does not begin, whichever of the two wants that.
        shared_paths: Folders, absolute, that every node of the cluster sees as the same: network disks. Where
            a cluster has several nodes, a store that is a path must lie in one; what lies there is not sent.
        gpu_memory_gb: Memory of a GPU, GB: teachers share one only where they fit together. None: teachers
            with equal needs share.
        object_store_mb: Memory of a local cluster's object store, MB; only receipts pass through it.
    """

    kind: Literal["ray", "serial"] = "ray"
    workers: int | None = Field(default=None, ge=1)
    address: str = "local"
    in_flight: int = Field(default=2, ge=1, le=8)
    max_retries: int = Field(default=3, ge=0)
    unit_deadline: Literal["auto", "off"] | Annotated[float, Field(gt=0)] = "auto"
    straggling: float = Field(default=3.0, ge=1)
    start_timeout: float = Field(default=600.0, gt=0)
    other_drivers: Literal["cooperate", "refuse"] = "cooperate"
    shared_paths: tuple[Annotated[str, AfterValidator(_absolute)], ...] = ()
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    object_store_mb: int = Field(default=256, ge=80)

    def rules(self) -> Rules:
        """How much is tried."""
        named = {"auto": None, "off": inf}
        deadline = named[self.unit_deadline] if isinstance(self.unit_deadline, str) else self.unit_deadline
        return Rules(
            in_flight=self.in_flight,
            max_retries=self.max_retries,
            deadline=deadline,
            straggling=self.straggling,
        )
