"""CPU seconds of work in several processes, told apart from what a Ray cluster costs by the second."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

_SAMPLE_EVERY = 0.1
_LOOK_EVERY = 10
"""Samples, of which the first of so many also looks for new processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """What a piece of work took.

    Attributes:
        cpu: CPU seconds of this process and of Ray's workers.
        wall: By the clock.
        services: CPU seconds of the cluster's services (raylet, GCS, agents) meanwhile.
    """

    cpu: float
    wall: float
    services: float

    def __sub__(self, other: Seconds) -> Seconds:
        """The difference, part by part."""
        return Seconds(
            cpu=self.cpu - other.cpu, wall=self.wall - other.wall, services=self.services - other.services
        )

    def __truediv__(self, by: float) -> Seconds:
        """Each part divided."""
        return Seconds(cpu=self.cpu / by, wall=self.wall / by, services=self.services / by)


def seconds_of(work: Callable[[], object]) -> Seconds:
    """Run it once and measure."""
    gc.collect()
    meter, started = CpuMeter(), time.perf_counter()
    work()
    wall = time.perf_counter() - started
    cpu, services = meter.stop()
    return Seconds(cpu=cpu, wall=wall, services=services)


class CpuMeter:
    """CPU seconds of this process and all it starts, including those that end while it watches; not its own.

    Work (this process, Ray's actors and tasks) is told apart from the services that a cluster keeps running
    (raylet, GCS, agents), which cost by the second and not by the row.
    """

    def __init__(self) -> None:
        """Start watching."""
        self._processes: list[psutil.Process] = []
        self._seen: dict[int, float] = {}
        self._workers = {os.getpid()}
        self._own = 0.0
        self._ended = threading.Event()
        self._look_for_processes()
        self._sample()
        self._before = dict(self._seen)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, float]:
        """CPU seconds of the work, and of the services, since the start."""
        self._ended.set()
        self._thread.join()
        self._look_for_processes()
        self._sample()
        spent = {pid: seconds - self._before.get(pid, 0.0) for pid, seconds in self._seen.items()}
        work = sum(seconds for pid, seconds in spent.items() if pid in self._workers)
        return work - self._own, sum(spent.values()) - work

    def _watch(self) -> None:
        samples = 0
        while not self._ended.wait(_SAMPLE_EVERY):
            samples += 1
            if samples % _LOOK_EVERY == 0:
                self._look_for_processes()
            self._sample()
        self._own = time.thread_time()

    def _look_for_processes(self) -> None:
        """Goes through all processes of the machine: ten milliseconds that would be taken from the work."""
        me = psutil.Process()
        self._processes = [me, *me.children(recursive=True)]

    def _sample(self) -> None:
        for process in self._processes:
            try:
                times = process.cpu_times()
                if process.pid not in self._workers and _works(process.cmdline()):
                    self._workers.add(process.pid)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            self._seen[process.pid] = times.user + times.system


def _works(command: list[str]) -> bool:
    """Ray names a worker after what it runs; agents, and workers that wait for work, are services."""
    name = command[0] if command else ""
    return name.startswith("ray::") and "Agent" not in name and "IDLE" not in name
