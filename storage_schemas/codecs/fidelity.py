"""How much a codec changes what a student sees and what it learns: the one judge of all of them.

What a student sees is judged by KL(p_T || decoded p_T) of each row; what it learns by the gradient of a batch
at its output layer, where errors that differ from row to row cancel and bias does not. All of it in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Codec, Columns

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
"""Where codecs are judged."""

_NOTHING = -1e30
"""In place of the log of 0, which is infinite, and 0 times that no number."""
_BLOCK_VALUES = 1 << 22
"""Logits at a time: some dozen rows of a large vocabulary, as decoding one costs as much as decoding ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """KL(p_T || decoded p_T) at one temperature over some rows, in nats."""

    mean: float
    p99: float
    max: float

    @classmethod
    def of(cls, kl_R: NDArray[np.float64]) -> Loss:
        """Of the divergence of each row; there is at least one."""
        return cls(mean=float(kl_R.mean()), p99=float(np.quantile(kl_R, 0.99)), max=float(kl_R.max()))

    def to_dict(self) -> dict[str, float]:
        """JSON-able."""
        return asdict(self)


def divergence(
    logits_BC: NDArray[np.floating], decoded_BC: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """KL(softmax(logits / T) || softmax(decoded / T)) of each row `[B]`, in nats, computed in float64.

    A class whose logit is -inf adds nothing to it, whatever is decoded.
    """
    log_p_BC, log_q_BC = (_log_softmax(values, temperature) for values in (logits_BC, decoded_BC))
    if (absent_BC := np.isneginf(log_p_BC)).any():
        log_q_BC[absent_BC] = log_p_BC[absent_BC] = _NOTHING
    log_q_BC -= log_p_BC
    kl_B: NDArray[np.float64] = -np.einsum("bc,bc->b", np.exp(log_p_BC, out=log_p_BC), log_q_BC)
    np.maximum(kl_B, 0, out=kl_B)
    return kl_B


def divergences(
    codec: Codec, columns: Columns, logits_RC: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """KL of each of R rows `[R]` between the teacher's logits and their columns, some rows at a time.

    Args:
        codec: What made the columns.
        columns: Of the same rows.
        logits_RC: The teacher's.
        temperature: T; whether the codec makes a claim for it is the caller's to ask.
    """
    kl_R = np.empty(len(logits_RC))
    for rows in _blocks(len(logits_RC), logits_RC.shape[1]):
        decoded_BC = _decoded(codec, columns, rows, temperature)
        kl_R[rows] = divergence(logits_RC[rows], decoded_BC, temperature)
    return kl_R


def judge(
    codec: Codec, logits_RC: NDArray[np.float32], temperatures: tuple[float, ...] = TEMPERATURES
) -> dict[float, Loss]:
    """What a codec does to R >= 1 rows, at those of the temperatures that it makes a claim for."""
    columns = codec.encode(logits_RC)
    least, most = codec.temperatures
    return {
        temperature: Loss.of(divergences(codec, columns, logits_RC, temperature))
        for temperature in temperatures
        if least <= temperature <= most
    }


def gradient_error(
    codec: Codec,
    logits_RC: NDArray[np.float32],
    temperature: float,
    batch_rows: int,
    student_RC: NDArray[np.floating] | None = None,
) -> float:
    """By how much the gradient that a batch gives a student's output layer is off, relative to itself.

    With p the teacher's, p^ the decoded and q the student's probabilities at T, the gradient of KL(p || q) in
    the student's logits is (q - p) / T. Its mean over a batch is what the output layer's bias learns from:

        || mean over the batch of (p^ - p) || / || mean over the batch of (p - q) ||

    Args:
        codec: What is judged.
        logits_RC: The teacher's; split into batches in their order, a last one that is not full left out.
        temperature: T.
        batch_rows: Rows a batch. A small batch hides bias behind errors that would cancel in a larger one.
        student_RC: The student's logits; None for one that knows nothing and gives all classes the same. The
            better the student, the smaller the gradient, and the larger its relative error.

    Returns:
        The root of the mean of the squared errors over that of the squared gradients; NaN without a batch.
    """
    columns = codec.encode(logits_RC)
    error = gradient = 0.0
    for first in range(0, len(logits_RC) - batch_rows + 1, batch_rows):
        error_C, gradient_C = np.zeros(logits_RC.shape[1]), np.zeros(logits_RC.shape[1])
        for rows in _blocks(batch_rows, logits_RC.shape[1], first):
            p_BC = _softmax(logits_RC[rows], temperature)
            q_BC = 1 / p_BC.shape[1] if student_RC is None else _softmax(student_RC[rows], temperature)
            gradient_C += (p_BC - q_BC).sum(axis=0)
            error_C += (_softmax(_decoded(codec, columns, rows, temperature), temperature) - p_BC).sum(axis=0)
        error, gradient = error + float(error_C @ error_C), gradient + float(gradient_C @ gradient_C)
    return math.sqrt(error / gradient) if gradient else math.nan


def _blocks(rows: int, classes: int, first: int = 0) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // classes)
    return (slice(first + at, first + min(at + step, rows)) for at in range(0, rows, step))


def _decoded(codec: Codec, columns: Columns, rows: slice, temperature: float) -> NDArray[np.float32]:
    return codec.decode({name: values[rows] for name, values in columns.items()}, temperature).shifted_BC


def _softmax(logits_BC: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    log_p_BC = _log_softmax(logits_BC, temperature)
    return np.exp(log_p_BC, out=log_p_BC)


def _log_softmax(logits_BC: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    scaled_BC: NDArray[np.float64] = logits_BC.astype(np.float64)
    scaled_BC -= scaled_BC.max(axis=1, keepdims=True)
    scaled_BC /= temperature
    scaled_BC -= np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))
    return scaled_BC
