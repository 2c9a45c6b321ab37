"""Classes that a teacher never gives: -inf in every row, as of a padded output layer. They are not stored.

A codec sees the other classes alone, in their order. Who reads gets all, the absent ones as -inf: of
probability 0 at any temperature.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Absent = tuple[int, ...]
"""Indices of absent classes, rising, each once."""


@lru_cache(maxsize=64)
def present_classes(num_classes: int, absent: Absent) -> NDArray[np.int64]:
    """Indices of the classes that are stored, in order; not to be written to."""
    classes = np.delete(np.arange(num_classes), absent)
    classes.flags.writeable = False
    return classes


def without_absent(logits_BC: NDArray[np.float32], absent: Absent) -> NDArray[np.float32]:
    """Logits `[B, K]` of the K classes that are stored, of those of all."""
    return logits_BC[:, present_classes(logits_BC.shape[1], absent)] if absent else logits_BC


def with_absent(logits_BK: NDArray[np.float32], num_classes: int, absent: Absent) -> NDArray[np.float32]:
    """Logits `[B, C]` of all classes, of those K that are stored."""
    if not absent:
        return logits_BK
    logits_BC = np.full((len(logits_BK), num_classes), -np.inf, dtype=np.float32)
    logits_BC[:, present_classes(num_classes, absent)] = logits_BK
    return logits_BC


def in_all_classes(stored: NDArray[np.integer], num_classes: int, absent: Absent) -> NDArray[np.int64]:
    """Indices among all classes, of indices among those that are stored."""
    return present_classes(num_classes, absent)[stored] if absent else stored.astype(np.int64, copy=False)
