"""What a training takes from the process it runs in: time, torch's random state, its threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch


class Clock:
    """Wall and CPU seconds, going on from those of earlier processes."""

    def __init__(self, *, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        """Start it.

        Args:
            seconds: Wall time of earlier processes.
            cpu_seconds: CPU time of the same.
        """
        self._before = seconds, cpu_seconds
        self._began = time.perf_counter(), time.process_time()

    def running(self) -> float:
        """Wall seconds of this process."""
        return time.perf_counter() - self._began[0]

    def read(self) -> tuple[float, float]:
        """Wall and CPU seconds of all processes."""
        return self._before[0] + self.running(), self._before[1] + time.process_time() - self._began[1]


def seed_torch(seed: int, epoch: int) -> None:
    """Give torch the random state that (seed, epoch) alone decides."""
    state = np.random.SeedSequence((seed, epoch, 1)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Torch's random state, on the host and on the device that trains, as bytes."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's random state back to what `random_state` found."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def torch_left_as_found(num_threads: int | None) -> Iterator[None]:
    """Torch's random state and number of threads belong to the caller.

    Args:
        num_threads: CPU threads inside; None leaves them as they are.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        try:
            if num_threads is not None:
                torch.set_num_threads(num_threads)
            yield
        finally:
            torch.set_num_threads(threads)
