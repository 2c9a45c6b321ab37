"""Small teachers for tests, as factories that a config names (`toy_models:net`)."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import nn

GATE = "SOFTCASK_TEST_GATE"


def net(seed: int = 0, classes: int = 5, hidden: int = 32) -> nn.Module:
    """Two layers over 6 x 4 inputs, scaled up so that its softmax is no longer uniform."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(24, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


class _Faulty(nn.Module):
    """A net whose logits of one row are spoiled: the row whose first input is `where`."""

    def __init__(self, where: float, value: float) -> None:
        super().__init__()
        self.net = net()
        self.where, self.value = where, value

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.net(inputs).clone()
        logits[inputs.flatten(1)[:, 0] == self.where, 2] = self.value
        return logits


def faulty(where: float, value: float = float("nan")) -> nn.Module:
    """A teacher that gives `value` for class 2 of one row."""
    return _Faulty(where, value)


class _Greedy(nn.Module):
    """A net that asks for more memory than there is for more than `most` rows at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = net(), most

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > self.most:
            torch.empty(10**15)
        logits: torch.Tensor = self.net(inputs)
        return logits


def greedy(most: int) -> nn.Module:
    """A teacher whose device has room for so many rows."""
    return _Greedy(most)


class _Slow(nn.Module):
    """A net that takes at least so long a batch, so that a test has time to kill its process."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.net, self.seconds = net(), seconds

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.net(inputs)


def slow(seconds: float) -> nn.Module:
    """`net()`, slowly."""
    return _Slow(seconds)


class _Held(nn.Module):
    """A net that waits at row `row` for whoever holds the gate: a FIFO, read until its writer closes it."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.net, self.row = net(), row

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if GATE in os.environ and (inputs.flatten(1)[:, 0] == self.row / 2).any():
            Path(os.environ[GATE]).read_bytes()
        return self.net(inputs)


def held(row: int) -> nn.Module:
    """`net()`; a process that has `GATE` in its environment is held at a row, which is to be no probe row.

    The gate is no argument, because arguments are part of what a teacher is.
    """
    return _Held(row)


def raising() -> nn.Module:
    """A factory that raises."""
    raise RuntimeError("no such checkpoint on the moon")


class _Deadly(nn.Module):
    """A net that ends its process, as the kernel does when memory is short, once it meets row 64."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if (inputs.flatten(1)[:, 0] == 32.5).any():  # row 65, which is no probe row
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(inputs)


def deadly() -> nn.Module:
    """A teacher that kills its process half-way."""
    return _Deadly()


class _Broken(nn.Module):
    """A net that raises at a row while a file is there; it stands for a cause that somebody mends."""

    def __init__(self, row: int, file: str) -> None:
        super().__init__()
        self.net, self.row, self.file = net(), row, Path(file)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if (inputs.flatten(1)[:, 0] == self.row / 2).any() and self.file.exists():
            raise RuntimeError(f"no device for row {self.row}")
        return self.net(inputs)


def broken_while(row: int, file: str) -> nn.Module:
    """`net()`, but raising at a row, which is to be no probe row, while there is a file."""
    return _Broken(row, file)


class _BrokenAfter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = net(), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError(f"no kernel image is available, call {self.calls}")
        return self.net(inputs)


def broken_after_probe() -> nn.Module:
    """A teacher that can be loaded and pinned, and fails on every unit."""
    return _BrokenAfter()


class _Padded(nn.Module):
    """A net of which some classes are -inf in every row, but for what is spoiled in the row `where`."""

    def __init__(self, module: nn.Module, absent: list[int], where: float, spoiled: dict[int, float]) -> None:
        super().__init__()
        self.net, self.absent, self.where, self.spoiled = module, absent, where, spoiled

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.net(inputs).clone()
        logits[:, self.absent] = -torch.inf
        for column, value in self.spoiled.items():
            logits[inputs.flatten(1)[:, 0] == self.where, column] = value
        return logits


def padded(
    classes: int, absent: list[int], seed: int = 0, where: float = -1, spoiled: dict[str, float] | None = None
) -> nn.Module:
    """A teacher of a padded output layer."""
    other = {int(column): value for column, value in (spoiled or {}).items()}
    return _Padded(net(seed, classes), absent, where, other)


class _DeadlyOnce(nn.Module):
    """A net that ends its process in its n-th training batch, unless a file says that it did so before."""

    def __init__(self, file: str, batch: int, seed: int) -> None:
        super().__init__()
        self.net, self.file, self.batches_left = net(seed), Path(file), batch

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches_left -= 1
            if self.batches_left < 0 and not self.file.exists():
                self.file.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.net(inputs)


def deadly_once(file: str, batch: int, seed: int = 0) -> nn.Module:
    """A student whose process is killed once."""
    return _DeadlyOnce(file, batch, seed)


class _Recording(nn.Module):
    """A net that writes down every batch that it is given."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.net, self.folder = net(), Path(folder)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        np.save(self.folder / f"{uuid.uuid4().hex}.npy", inputs.numpy())
        return self.net(inputs)


def recording(folder: str) -> nn.Module:
    """`net()`, which leaves the rows that it has seen in a folder."""
    return _Recording(folder)
