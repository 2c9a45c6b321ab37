"""What a run measured, kept under `runs/`: never part of the store's identity."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from softcask.pipeline.executors.base import Executor, Failure
from softcask.pipeline.label import TaskReport
from softcask.pipeline.precompute.outcome import failed_units
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys
from softcask.storage_schemas.runs import RunRecord

_VERSIONED = ("softcask", "torch", "numpy", "pyarrow", "ray")


class Totals:
    """What this run did, summed over its tasks."""

    def __init__(self) -> None:
        self.tasks = 0
        self.rows: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.devices: set[str] = set()
        self.warnings: list[str] = []
        self.failures: list[Failure] = []

    def add(self, report: TaskReport) -> None:
        """Count a task that ended."""
        self.tasks += 1
        self.rows.update(report.rows)
        self.units.update(report.rows.keys())
        self.devices.add(report.device)
        self.warnings += report.warnings
        for stage, seconds in report.seconds.items():
            self.seconds[stage] += seconds


def record_run(
    objects: StoreObjects, executor: Executor, totals: Totals, started: datetime, wall: float
) -> str:
    """Write `runs/RUN/run.json`; the name of the run is when it started."""
    forward = "forward:"
    stamp = f"{started:%Y%m%dT%H%M%S}-{started.microsecond:06d}"
    record = RunRecord(
        run=stamp,
        started=started.isoformat(),
        wall_seconds=wall,
        executor=executor.name,
        workers=executor.workers,
        host=platform.node(),
        versions=versions(),
        units=dict(totals.units),
        rows=dict(totals.rows),
        device_seconds={
            k.removeprefix(forward): v for k, v in totals.seconds.items() if k.startswith(forward)
        },
        stage_seconds={k: v for k, v in totals.seconds.items() if not k.startswith(forward)},
        devices=tuple(sorted(totals.devices)),
        given_up=failed_units(totals.failures),
    )
    objects.publish(keys.run_record(stamp), record.to_bytes())
    return stamp


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that logits may depend on."""
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
