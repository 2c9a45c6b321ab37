"""Augmentations of a user's, as a config names them (`toy_views:jitter`)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def jitter(row: NDArray[Any], generator: np.random.Generator, scale: float = 0.1) -> NDArray[Any]:
    """Noise, added in place: rows are the function's own."""
    row += generator.normal(0, scale, row.shape).astype(row.dtype)
    return row


def stammer(row: str, generator: np.random.Generator) -> str:
    """A word of a text twice."""
    words = row.split()
    at = int(generator.integers(len(words)))
    return " ".join([*words[: at + 1], *words[at:]])


def careless(row: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Draws from where it should not."""
    return row + np.float32(random.random())


def broken(row: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Raises at a row."""
    raise ValueError("no such colour")


def ragged(row: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Rows of all sizes."""
    return row[: int(generator.integers(1, len(row)))]


def noise(scale: float = 0.1) -> Callable[[torch.Tensor], torch.Tensor]:
    """A transform that draws as torchvision's do."""

    def transform(image: torch.Tensor) -> torch.Tensor:
        if torch.rand(1) < 0.5:
            image = image.flip(-1)
        return image.float() + scale * torch.randn_like(image.float()) + torch.empty(1).uniform_(0, 1)

    return transform


def dropping() -> Callable[[torch.Tensor], torch.Tensor]:
    """A transform that cannot be replayed."""
    return lambda image: torch.nn.functional.dropout(image.float())


def number() -> int:
    """No transform."""
    return 3
