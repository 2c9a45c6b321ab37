"""Top-k with one bucket for the rest, as Megatron-LM keeps it (its pull request 5019, `logits_saver.py`).

A class is 16 bits of its number, a boolean for the 17th, and a float16 log-probability, in tensors that are
compressed with zstd. The bucket (its "ghost token") is what the others have together; a student's loss takes
it as one class, which says as much about the others as giving each an equal share. Re-implemented here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rivals.base import Kept, Rows, dense, largest_within, uniform_tail, zstd_bytes

MOST_CLASSES = 1 << 17


def kept(rows: Rows, budget: int) -> Kept | None:
    """As many classes as the budget holds after zstd."""
    classes, ids_NK, log_p_NK = rows.classes, rows.ids_NK, rows.log_p_NK

    def bytes_of(k: int) -> float:
        return zstd_bytes(*tensors(ids_NK[:, :k], log_p_NK[:, :k])) / len(rows)

    k = largest_within(budget, bytes_of, ids_NK.shape[1])
    if k is None or classes > MOST_CLASSES:
        return None
    low_NK, high_NK, half_NK = tensors(ids_NK[:, :k], log_p_NK[:, :k])

    def decode(at: slice, temperature: float) -> NDArray[np.float32]:
        ids_BK = low_NK[at].astype(np.int64) | (high_NK[at].astype(np.int64) << 16)
        log_p_BK = half_NK[at].astype(np.float32)
        return dense(ids_BK, log_p_BK, classes, uniform_tail(log_p_BK, classes))

    return Kept(name=f"Megatron-LM: top {k}, bucket", bytes_a_row=bytes_of(k), decode=decode)


def tensors(
    ids_NK: NDArray[np.int64], log_p_NK: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Its three tensors: low 16 bits, the 17th, log-probabilities."""
    return (ids_NK & 0xFFFF).astype(np.uint16), (ids_NK >> 16).astype(bool), log_p_NK.astype(np.float16)
