"""How much a codec changes what a student sees: KL(p_T || decoded p_T), in nats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
"""Where codecs are judged."""


def divergence(logits_BC: NDArray[Any], decoded_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """KL(softmax(logits / T) || softmax(decoded / T)) of each row `[B]`, in nats, computed in float64."""
    log_p_BC, log_q_BC = (_log_softmax(values, temperature) for values in (logits_BC, decoded_BC))
    kl_B: NDArray[np.float64] = (np.exp(log_p_BC) * (log_p_BC - log_q_BC)).sum(axis=1)
    return np.maximum(kl_B, 0)


def _log_softmax(logits_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64)
    scaled_BC -= scaled_BC.max(axis=1, keepdims=True)
    scaled_BC /= temperature
    scaled_BC -= np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))
    return scaled_BC
