"""The arithmetic mean of probabilities: one of the two that section 1 of the paper names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.softmax import softmax


def mean(
    logits_MBC: NDArray[np.float32], weights_M: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """`sum_m w_m softmax(z_m / T)`, `[B, C]`.

    It is no softmax of any one set of logits: it depends on T, so that members are kept apart in a store.
    """
    combined_BC = np.zeros(logits_MBC.shape[1:], np.float32)
    for logits_BC, weight in zip(logits_MBC, weights_M, strict=True):
        tempered_BC = softmax(logits_BC, temperature)
        tempered_BC *= weight
        combined_BC += tempered_BC
    return combined_BC
