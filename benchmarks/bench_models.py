"""The models that the engine's cost is measured with, as factories that a config names."""

from __future__ import annotations

import torch
from torch import nn


def mlp() -> nn.Module:
    """784-1200-1200-10, the paper's larger MNIST net (section 3); random weights, about 57 us a row."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 10)
    ).eval()


def conv() -> nn.Module:
    """A small convolutional net; random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 28)),
        nn.Conv2d(1, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    ).eval()
