"""What a rival is: logits in, bytes and a way back out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Missing(Exception):
    """A package or a checkout that is not on this machine; says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Rows as somebody keeps them.

    Attributes:
        name: Who, and with what settings.
        bytes_a_row: On disk, mean over the rows.
        decode: `(rows, temperature)` to float32 `[B, C]`, whose softmax at that temperature is what a student
            is given; -inf where it is given nothing.
        once_bytes: What is kept once a teacher beside the rows.
        note: What a reader of the table has to know.
    """

    name: str
    bytes_a_row: float
    decode: Callable[[slice, float], NDArray[np.float32]]
    once_bytes: int = 0
    note: str = ""


MOST_KEPT = 512
"""More classes than any rival gets into the largest budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A teacher's rows, and the part of them that most rivals keep.

    Attributes:
        logits_NC: Float32.
        ids_NK: The largest classes of each row, largest first.
        log_p_NK: Their log-probabilities at T=1.
    """

    logits_NC: NDArray[np.float32]
    ids_NK: NDArray[np.int64]
    log_p_NK: NDArray[np.float32]

    @classmethod
    def of(cls, logits_NC: NDArray[np.float32]) -> Rows:
        """Rows of `logits_NC`, in blocks of memory that are small beside them."""
        most = min(MOST_KEPT, logits_NC.shape[1] - 1)
        parts = [top_k(logits_NC[first : first + 64], most) for first in range(0, len(logits_NC), 64)]
        ids, log_p = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return cls(logits_NC=logits_NC, ids_NK=ids, log_p_NK=log_p)

    @property
    def classes(self) -> int:
        """C."""
        return self.logits_NC.shape[1]

    def __len__(self) -> int:
        return len(self.logits_NC)


def top_k(logits_BC: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k largest classes of each row, largest first, and their log-probabilities at T=1."""
    unsorted_BK = np.argpartition(logits_BC, -k, axis=1)[:, -k:]
    values_BK = np.take_along_axis(logits_BC, unsorted_BK, axis=1)
    order_BK = np.argsort(-values_BK, axis=1, kind="stable")
    ids_BK = np.take_along_axis(unsorted_BK, order_BK, axis=1)
    return ids_BK, np.take_along_axis(values_BK, order_BK, axis=1) - log_sum_exp(logits_BC)[:, None]


def log_sum_exp(logits_BC: NDArray[np.float32]) -> NDArray[np.float32]:
    """`log sum exp` of each row, summed in float64."""
    most_B = logits_BC.max(axis=1)
    sums_B = np.exp(logits_BC - most_B[:, None]).sum(axis=1, dtype=np.float64)
    return (most_B + np.log(sums_B)).astype(np.float32)


def dense(
    ids_BK: NDArray[Any], log_p_BK: NDArray[np.float32], num_classes: int, fill_B: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`[B, C]`: each row's own fill, and the given classes' log-probabilities."""
    filled_BC = np.repeat(fill_B[:, None].astype(np.float32), num_classes, axis=1)
    np.put_along_axis(filled_BC, ids_BK.astype(np.int64), log_p_BK.astype(np.float32), axis=1)
    return filled_BC


def uniform_tail(log_p_BK: NDArray[np.float32], num_classes: int) -> NDArray[np.float32]:
    """Log-probability of each other class where they share what the top k leave; never 0."""
    left_B = 1 - np.exp(log_p_BK.astype(np.float64)).sum(axis=1)
    share_B = np.maximum(left_B, 1e-8) / (num_classes - log_p_BK.shape[1])
    return np.log(share_B).astype(np.float32)


def zstd_bytes(*tensors: NDArray[Any]) -> int:
    """Bytes of tensors, each compressed with zstd at its default level."""
    codec = pa.Codec("zstd", compression_level=3)
    return sum(len(codec.compress(np.ascontiguousarray(tensor).tobytes())) for tensor in tensors)


def largest_within(budget: float, bytes_of: Callable[[int], float], most: int) -> int | None:
    """The largest k from 1 to `most` whose bytes are within the budget; bytes must rise with k."""
    least, beyond = 0, most + 1
    while beyond - least > 1:
        middle = (least + beyond) // 2
        if bytes_of(middle) <= budget:
            least = middle
        else:
            beyond = middle
    return least or None
