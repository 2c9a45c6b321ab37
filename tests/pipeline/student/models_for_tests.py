"""Factories that the tests' student files name."""

from __future__ import annotations

import os
import signal

import torch


def mlp(width: int = 16, classes: int = 5, dropout: float = 0.0) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(12, width),
        torch.nn.ReLU(),
        torch.nn.BatchNorm1d(width),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(width, classes),
    )


class Tied(torch.nn.Module):
    """Two names, one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.nn.Linear(12, 12)
        self.again = self.inside
        self.head = torch.nn.Linear(12, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.again(self.inside(inputs))))


def nothing_to_train() -> torch.nn.Module:
    return torch.nn.Flatten()


def no_module() -> str:
    return "a string"


def wants_images() -> torch.nn.Module:
    return torch.nn.Conv2d(1, 5, 3)


def without_output_bias() -> torch.nn.Module:
    """A bias of as many numbers as there are classes, but not the output's."""
    return torch.nn.Sequential(
        torch.nn.Linear(12, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 5),
        torch.nn.BatchNorm1d(5),
        torch.nn.Linear(5, 5, bias=False),
    )


class Mortal(torch.nn.Module):
    """A student whose process is killed when it is about to train on a batch that the environment names."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = mlp(dropout=0.3)
        self.trained_on = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.trained_on += self.training
        if self.training and str(self.trained_on) == os.environ.get("SOFTCASK_DIES_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.as_tensor(self.inside(inputs))
