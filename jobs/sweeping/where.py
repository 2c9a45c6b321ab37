"""Where the students of a sweep are trained, said without Ray."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a sweep's students are trained.

    Attributes:
        address: `local` for a cluster of its own on this machine; else as `ray.init` takes it.
        most: Students at once; None: as many as there is room for.
        cpus: Of each student, and its torch threads where its file states none.
        gpus: Of each student; a share lets several use one. None: one where the cluster has any.
    """

    address: str = "local"
    most: int | None = None
    cpus: int = 1
    gpus: float | None = None
