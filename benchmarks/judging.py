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


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Rows of a teacher that codecs are judged on.

    Attributes:
        logits_NC: Float32.
        features_ND: What a student's output layer sees on them.
        kl_rows: How many of them KL is taken over; gradients over all.
    """

    logits_NC: NDArray[np.float32]
    features_ND: NDArray[np.float32]
    kl_rows: int
    _norms: dict[float, dict[int, list[float]]] = field(default_factory=dict, repr=False)

    def verdict(self, kept: Kept) -> Verdict:
        """KL and gradients at every temperature."""
        logits_NC = self.logits_NC[: self.kl_rows]
        return Verdict(
            kept=kept,
            kl={temperature: kl_of(kept, logits_NC, temperature) for temperature in TEMPERATURES},
            gradient={
                temperature: self.gradient_errors(kept, temperature) for temperature in GRADIENT_TEMPERATURES
            },
        )

    def gradient_errors(self, kept: Kept, temperature: float) -> dict[int, float]:
        """Norm of the error of a batch's gradient over the norm of that gradient, mean over disjoint batches.

        The gradient of `T^2 KL` at the student's output layer `[D, C]`: `T * sum (q - p) x features`, for a
        student that has learned how frequent classes are and nothing else (q is the mean of p).
        """
        if temperature not in self._norms:
            self._norms[temperature] = self._gradient_norms(temperature)
        norms = self._norms[temperature]
        errors = []
        for rows in self._blocks():
            wrong_BC = tempered(self.logits_NC[rows], temperature)
            wrong_BC -= tempered(kept.decode(rows, temperature), temperature)
            errors.append(self.features_ND[rows].T @ wrong_BC)
        return {
            size: float(np.mean([np.linalg.norm(sum(some)) / norm for some, norm in pairs]))
            for size in norms
            for pairs in [list(zip(_batches(errors, size), norms[size], strict=True))]
        }

    def _gradient_norms(self, temperature: float) -> dict[int, list[float]]:
        """Of the exact gradients of each batch, by the batches' size."""
        mean_C = np.zeros(self.logits_NC.shape[1], dtype=np.float32)
        teacher, features = [], []
        for rows in self._blocks():
            p_BC = tempered(self.logits_NC[rows], temperature)
            mean_C += p_BC.sum(axis=0)
            features.append(self.features_ND[rows].sum(axis=0))
            teacher.append(self.features_ND[rows].T @ p_BC)
        mean_C /= len(teacher) * BATCHES[0]
        return {
            size: [
                float(np.linalg.norm(np.outer(sum(seen), mean_C) - sum(some)))
                for seen, some in zip(_batches(features, size), _batches(teacher, size), strict=True)
            ]
            for size in BATCHES
            if size <= len(self.logits_NC)
        }

    def _blocks(self) -> list[slice]:
        """Blocks of the smallest batch's size."""
        step = BATCHES[0]
        return [slice(first, first + step) for first in range(0, len(self.logits_NC) - step + 1, step)]


def _batches(blocks: list[NDArray[np.float32]], size: int) -> list[list[NDArray[np.float32]]]:
    step = size // BATCHES[0]
    return [blocks[first : first + step] for first in range(0, len(blocks) - step + 1, step)]


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


def tempered(logits_BC: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """softmax(logits / T) in float32; -inf gives 0."""
    p_BC = logits_BC - logits_BC.max(axis=1, keepdims=True)
    p_BC /= np.float32(temperature)
    np.exp(p_BC, out=p_BC)
    p_BC /= p_BC.sum(axis=1, keepdims=True)
    return p_BC
