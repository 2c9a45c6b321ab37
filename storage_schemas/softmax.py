"""The one softmax of the reading side: stable, tempered, float32 in and out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import ConfigError


def check_temperature(temperature: float) -> float:
    """The temperature itself, once it is known to be finite and above zero.

    Raises:
        ConfigError: It is neither.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(
            f"temperature is {temperature!r}; it must be a finite number above 0: 1 gives the teacher's own "
            "probabilities, 2 to 20 soften them"
        )
    return float(temperature)


def log_softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float32]:
    """`log softmax(logits / T)` over the last axis.

    Args:
        logits: `[..., C]`, any real dtype.
        temperature: T > 0 (section 2 of the paper, equation 1).

    Raises:
        ConfigError: T is not finite or not above zero.
    """
    scaled = _scaled(logits, check_temperature(temperature))
    scaled -= np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return scaled


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float32]:
    """`softmax(logits / T)` over the last axis: rows of float32 that sum to 1.

    Args:
        logits: `[..., C]`, any real dtype.
        temperature: T > 0 (section 2 of the paper, equation 1).

    Raises:
        ConfigError: T is not finite or not above zero.
    """
    scaled = _scaled(logits, check_temperature(temperature))
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=-1, keepdims=True)
    return scaled


def _scaled(logits: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    # The maximum goes first: dividing large logits first would round away the differences that count.
    scaled: NDArray[np.float32] = np.array(logits, dtype=np.float32)
    scaled -= scaled.max(axis=-1, keepdims=True)
    scaled /= np.float32(temperature)
    return scaled
