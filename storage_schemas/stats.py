"""What a teacher thinks of each row, as a table for pandas: top classes, entropy, margin.

Made from the logits as stored, not as computed, so that whoever finds a unit's logits can make its table
again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Decoded
from softcask.storage_schemas.tables import STATS

TOP = 5
_BLOCK_ROWS, _BLOCK_VALUES = 512, 1 << 14
"""Rows at a time, or of few classes as many as make so many logits: what fits a cache is seven times as fast,
and a unit takes megabytes and not gigabytes."""
_FEW = 16
"""Classes up to which sorting all is faster than looking for the largest again and again."""


def stats_table(
    decoded: Decoded,
    *,
    rows_B: NDArray[np.int64],
    sample_ids: pa.Array,
    labels_B: NDArray[np.int64],
    classes_K: NDArray[np.int64] | None = None,
) -> pa.Table:
    """Statistics at T=1 of B rows.

    Args:
        decoded: Logits `[B, K]` as stored.
        rows_B: Each row's place in its segment.
        sample_ids: Each row's id, strings.
        labels_B: Each row's class, -1 where it has none.
        classes_K: Which classes are stored, where some are absent; None: all.

    Returns:
        A table with the schema `STATS`: log-probabilities, entropy and logsumexp in nats; the margin is the
        difference of the two largest probabilities.
    """
    classes = min(TOP, decoded.shifted_BC.shape[1])
    top_BK = np.empty((len(rows_B), classes), dtype=np.int32)
    top_log_BK = np.empty((len(rows_B), classes), dtype=np.float32)
    entropy_B, margin_B, log_sum_B = (np.empty(len(rows_B)) for _ in range(3))
    step = max(_BLOCK_ROWS, _BLOCK_VALUES // decoded.shifted_BC.shape[1])
    for first in range(0, len(rows_B), step):
        part = slice(first, first + step)
        statistics = _statistics(decoded.shifted_BC[part])
        top_BK[part], top_log_BK[part], entropy_B[part], margin_B[part], log_sum_B[part] = statistics
    columns = {
        "row": pa.array(rows_B, pa.int64()),
        "sample_id": sample_ids,
        "label": pa.array(labels_B, pa.int32(), mask=labels_B < 0),
        "top_classes": _lists(top_BK if classes_K is None else classes_K[top_BK].astype(np.int32)),
        "top_log_probs": _lists(top_log_BK),
        "entropy": pa.array(entropy_B.astype(np.float32)),
        "margin": pa.array(margin_B.astype(np.float32)),
        "logsumexp": pa.array((log_sum_B + decoded.row_max_B).astype(np.float32)),
    }
    return pa.table(columns, schema=STATS)


def _statistics(shifted_BC: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Top classes and their log-probabilities `[B, K]`; entropy, margin and log of the sum `[B]`."""
    top_BK = _sorted(shifted_BC)[:, :TOP] if shifted_BC.shape[1] <= _FEW else top_classes(shifted_BC, TOP)
    shifted_BC = shifted_BC.astype(np.float64)
    exp_BC = np.exp(shifted_BC)
    sum_B = exp_BC.sum(axis=1)
    log_sum_B = np.log(sum_B)
    top_log_BK = np.take_along_axis(shifted_BC, top_BK, axis=1) - log_sum_B[:, None]
    # A class at -65504 contributes exp(..) = 0 times a finite number: no NaN can arise.
    exp_BC *= shifted_BC
    entropy_B = log_sum_B - exp_BC.sum(axis=1) / sum_B
    top_BT = np.exp(top_log_BK[:, :2])
    return top_BK, top_log_BK, np.maximum(entropy_B, 0), top_BT[:, 0] - top_BT[:, 1], log_sum_B


def top_classes(scores_BC: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Indices `[B, min(count, C)]` of the largest finite scores, in order; ties go to the lower class."""
    rest_BC = scores_BC.astype(np.float64)
    rows_B = np.arange(len(rest_BC))
    top_BK = np.empty((len(rest_BC), min(count, rest_BC.shape[1])), dtype=np.int64)
    # By argmax, which takes the first of equals: a partition would leave ties in any order.
    for place in range(top_BK.shape[1]):
        top_BK[:, place] = best_B = rest_BC.argmax(axis=1)
        rest_BC[rows_B, best_B] = -np.inf
    return top_BK


def _sorted(shifted_BC: NDArray[np.float32]) -> NDArray[np.int64]:
    """All classes by their logits, which are at most 0, from the largest on; ties go to the lower class."""
    # The bits of numbers below zero rise as they fall; the class behind them makes every key another.
    keys_BC = (shifted_BC + np.float32(0)).view(np.uint32).astype(np.uint64)
    keys_BC <<= np.uint64(32)
    keys_BC |= np.arange(shifted_BC.shape[1], dtype=np.uint64)
    keys_BC.sort(axis=1)
    return keys_BC.astype(np.uint32).astype(np.int64)


def _lists(values_BK: NDArray[np.generic]) -> pa.Array:
    rows, width = values_BK.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values_BK).reshape(-1)))
