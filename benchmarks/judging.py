"""How a codec is judged: KL of what a student is given, and the error of the gradient it learns from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rivals.base import Kept

from softcask.storage_schemas.codecs.fidelity import TEMPERATURES, divergence

BATCHES = (128, 512, 2_048)
GRADIENT_TEMPERATURES = tuple(temperature for temperature in TEMPERATURES if temperature >= 1)
_BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one codec's rows.

    Attributes:
        kept: What was judged.
        kl: Nats by temperature: mean, 99th percentile and largest over the rows.
        gradient: Relative error of a batch's gradient by temperature and batch size.
    """

    kept: Kept
    kl: dict[float, tuple[float, float, float]]
    gradient: dict[float, dict[int, float]] = field(default_factory=dict)


def judge(
    kept: Kept, logits_NC: NDArray[np.float32], features_ND: NDArray[np.float32], kl_rows: int
) -> Verdict:
    """KL over the first `kl_rows` rows, gradients over all."""
    kl = {temperature: kl_of(kept, logits_NC[:kl_rows], temperature) for temperature in TEMPERATURES}
    gradient = {
        temperature: gradient_errors(kept, logits_NC, features_ND, temperature)
        for temperature in GRADIENT_TEMPERATURES
    }
    return Verdict(kept=kept, kl=kl, gradient=gradient)


def kl_of(kept: Kept, logits_NC: NDArray[np.float32], temperature: float) -> tuple[float, float, float]:
    """Mean, 99th percentile and largest KL(teacher || kept) in nats; inf where a class is given nothing."""
    parts = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for first in range(0, len(logits_NC), _BLOCK):
            rows = slice(first, min(first + _BLOCK, len(logits_NC)))
            parts.append(divergence(logits_NC[rows], kept.decode(rows, temperature), temperature))
    kl_N = np.concatenate(parts)
    kl_N[np.isnan(kl_N)] = np.inf
    return float(kl_N.mean()), float(np.sort(kl_N)[int(0.99 * (len(kl_N) - 1))]), float(kl_N.max())


def gradient_errors(
    kept: Kept, logits_NC: NDArray[np.float32], features_ND: NDArray[np.float32], temperature: float
) -> dict[int, float]:
    """Norm of the error of a batch's gradient over the norm of that gradient, mean over disjoint batches.

    The gradient of `T^2 KL` at the student's output layer `[D, C]`, which is `T * sum (q - p) x features`,
    for a student that has learned how frequent classes are and nothing else (q is the mean of p over rows).
    """
    blocks = len(logits_NC) // BATCHES[0]
    mean_C = np.zeros(logits_NC.shape[1], dtype=np.float32)
    teacher_BDC, error_BDC, features_BD = [], [], []
    for block in range(blocks):
        rows = slice(block * BATCHES[0], (block + 1) * BATCHES[0])
        p_BC = tempered(logits_NC[rows], temperature)
        mean_C += p_BC.sum(axis=0)
        features = features_ND[rows]
        features_BD.append(features.sum(axis=0))
        teacher_BDC.append(features.T @ p_BC)
        p_BC -= tempered(kept.decode(rows, temperature), temperature)
        error_BDC.append(features.T @ p_BC)
    mean_C /= blocks * BATCHES[0]
    errors = {}
    for size in BATCHES:
        step = size // BATCHES[0]
        ratios = []
        for first in range(0, blocks - step + 1, step):
            some = slice(first, first + step)
            gradient_DC = np.outer(np.sum(features_BD[some], axis=0), mean_C) - np.sum(
                teacher_BDC[some], axis=0
            )
            ratios.append(np.linalg.norm(np.sum(error_BDC[some], axis=0)) / np.linalg.norm(gradient_DC))
        errors[size] = float(np.mean(ratios)) if ratios else float("nan")
    return errors


def tempered(logits_BC: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """softmax(logits / T) in float32; -inf gives 0."""
    p_BC = logits_BC - logits_BC.max(axis=1, keepdims=True)
    p_BC /= np.float32(temperature)
    np.exp(p_BC, out=p_BC)
    p_BC /= p_BC.sum(axis=1, keepdims=True)
    return p_BC
