"""What a run did, summed over its tasks, and the record that it leaves: never part of a store's identity."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from softcask.pipeline.executors.base import Failure
from softcask.pipeline.label import TaskReport

_VERSIONED = ("softcask", "torch", "numpy", "pyarrow", "ray")
_OF_TEACHERS = ("timm", "torchvision", "transformers", "tokenizers", "onnxruntime", "pillow")
_MOST_WARNINGS = 1_000
_MOST_CONDITIONS = 64


class Totals:
    """What this run did, summed over its tasks. Does not grow with them."""

    def __init__(self, gpus: Mapping[str, float] | None = None) -> None:
        """Nothing is done yet.

        Args:
            gpus: GPUs that a worker of each teacher holds, where it holds any.
        """
        self.tasks = 0
        self.rows: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self.device_seconds: defaultdict[str, float] = defaultdict(float)
        self.stage_seconds: defaultdict[str, float] = defaultdict(float)
        self.repeated: defaultdict[str, float] = defaultdict(float)
        self.conditions: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.bytes = 0
        self.trials: defaultdict[str, float] = defaultdict(float)
        self.devices: set[str] = set()
        self.warnings: list[str] = []
        self.failures: list[Failure] = []
        self.gpus = dict(gpus or {})

    def add(self, report: TaskReport) -> None:
        """Count a task that ended."""
        self.tasks += 1
        self.rows.update(report.rows)
        self.units.update(report.rows.keys())
        self.bytes += report.bytes
        self.devices.add(report.device)
        for teacher, found in report.conditions.items():
            known = self.conditions[teacher]
            if found not in known and len(known) < _MOST_CONDITIONS:
                known.append(dict(found))
        self.warnings += report.warnings[: _MOST_WARNINGS - len(self.warnings)]
        for stage, seconds in report.seconds.items():
            name, _, teacher = stage.partition(":")
            self.stage_seconds[name] += seconds
            if teacher:
                self.device_seconds[teacher] += self.held(teacher, seconds)
            if teacher in report.repeated:
                self.repeated[teacher] += self.held(teacher, seconds)

    def held(self, teacher: str, seconds: float) -> float:
        """Device-seconds of a forward pass: of several GPUs or a share of one, times that number."""
        return seconds * (self.gpus.get(teacher) or 1.0)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that logits may depend on."""
    found = {"python": platform.python_version()}
    for package in (*_VERSIONED, *_OF_TEACHERS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
