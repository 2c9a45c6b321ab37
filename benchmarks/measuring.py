"""How benchmarks measure: CPU and wall time side by side, in rounds, on a machine that nobody else uses."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

BUSY = 0.5
"""Cores that others may use before figures mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a piece of work took, in microseconds a row.

    Attributes:
        cpu: Of all threads of the process.
        wall: By the clock.
    """

    cpu: float
    wall: float


def cost_of(work: Callable[[], object], rows: int) -> Cost:
    """What it takes to run `work`, over so many rows, once."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(cpu=(time.process_time() - cpu) / rows * 1e6, wall=(time.perf_counter() - wall) / rows * 1e6)


def in_rounds(works: Mapping[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, list[Cost]]:
    """Costs of each piece of (work, rows), all in turn, round after round; a first round is not counted.

    In turn, so that all meet the same weather.
    """
    found: dict[str, list[Cost]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, (work, rows) in works.items():
            cost = cost_of(work, rows)
            if number:
                found[name].append(cost)
    return found


def median(costs: list[Cost]) -> Cost:
    """Median of CPU and of wall time, each on its own."""
    return Cost(
        cpu=statistics.median(cost.cpu for cost in costs), wall=statistics.median(cost.wall for cost in costs)
    )


def refuse_if_busy() -> None:
    """End where others use the machine."""
    others = psutil.cpu_percent(interval=2.0) / 100 * (psutil.cpu_count() or 1)
    if others > BUSY:
        raise SystemExit(f"others use {others:.1f} cores; wait until the machine is idle, or give --force")


def machine() -> str:
    """What it runs on."""
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open() as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


@contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix="softcask-bench-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def command() -> str:
    """The command that this process was started by."""
    return "python " + " ".join(sys.argv)
