"""The geometric mean of probabilities: the mean of the members' logits, tempered (section 1 of the paper)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.softmax import softmax


def geometric(
    logits_MBC: NDArray[np.float32], weights_M: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """`softmax(sum_m w_m z_m / T)`, `[B, C]`: `prod_m softmax(z_m / T)^w_m`, normalised."""
    mean_BC = np.zeros(logits_MBC.shape[1:], np.float32)
    for logits_BC, weight in zip(logits_MBC, weights_M, strict=True):
        # A member's constant changes no probability, but large ones would cost the mean its last digits.
        mean_BC += weight * (logits_BC - logits_BC.max(axis=-1, keepdims=True))
    return softmax(mean_BC, temperature)
