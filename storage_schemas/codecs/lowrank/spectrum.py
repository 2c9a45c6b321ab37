"""Where a teacher's rows lie: weights of classes, the mean row, and the directions that rows differ in.

The recipe is weighted principal components. A row is centred under the weights, because softmax does not see
a constant; classes weigh what probability they carry outside the head, over the temperatures wanted, because
to second order the KL of a tail is half the variance of its error under the tail's own probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.softmax import softmax

_BLOCK_ROWS = 64
_HEAD = 32
_FLOOR = 1e-3
_SPAN_ROWS, _SPAN_BYTES = 1536, 512 << 20
_SMALLEST = 1e-6
"""Directions of a smaller share of the largest variance are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Principal directions of a teacher's rows, m of them, the widest first.

    Attributes:
        weights_C: float32, of sum 1.
        mean_C: float32 mean of the rows, each centred under the weights.
        basis_Cm: float32, orthonormal under the weights.
        deviations_m: float32 standard deviations of coefficients over the rows it was fitted to.
    """

    weights_C: NDArray[np.float32]
    mean_C: NDArray[np.float32]
    basis_Cm: NDArray[np.float32]
    deviations_m: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        logits_RC: NDArray[np.floating],
        temperatures: tuple[float, ...],
        output_layer_Cd: NDArray[np.floating] | None = None,
    ) -> Spectrum:
        """The spectrum of a teacher.

        Args:
            logits_RC: Rows of any float dtype, read a few at a time: it may be a memory map.
            temperatures: Those that soft targets are wanted at.
            output_layer_Cd: The weights of the last layer, where they are at hand: what it spans is exact,
                where rows span only what they showed. Without it, some 10 rows a direction are wanted.
        """
        weights_C = _weights(logits_RC, temperatures)
        mean_C = _mean(logits_RC, weights_C)
        roots_C = np.sqrt(weights_C)
        if output_layer_Cd is not None:
            spanning_nC = _centred(output_layer_Cd.T.astype(np.float32), weights_C)
        else:
            most = min(_SPAN_ROWS, max(2, _SPAN_BYTES // (4 * len(mean_C))), len(logits_RC))
            chosen_n = np.linspace(0, len(logits_RC) - 1, most).astype(np.int64)
            spanning_nC = _centred(logits_RC[chosen_n].astype(np.float32), weights_C) - mean_C
        span_Cm = _span(spanning_nC * roots_C)
        unrotated = cls(
            weights_C=weights_C,
            mean_C=mean_C,
            basis_Cm=(span_Cm / roots_C[:, None]).astype(np.float32),
            deviations_m=np.ones(span_Cm.shape[1], dtype=np.float32),
        )
        return unrotated._rotated(unrotated.coefficients(logits_RC))

    def coefficients(self, logits_RC: NDArray[np.floating]) -> NDArray[np.float32]:
        """Coefficients `[R, m]` of rows `[R, C]`."""
        weighted_Cm = self.basis_Cm * self.weights_C[:, None]
        blocks = [
            (_centred(block_BC, self.weights_C) - self.mean_C) @ weighted_Cm
            for block_BC in _blocks(logits_RC)
        ]
        return np.concatenate(blocks)

    def _rotated(self, coefficients_Rm: NDArray[np.float32]) -> Spectrum:
        """Along the principal directions of coefficients."""
        exact_Rm = coefficients_Rm.astype(np.float64)
        variances_m, rotation_mm = np.linalg.eigh(exact_Rm.T @ exact_Rm / len(exact_Rm))
        kept = np.flatnonzero(variances_m > _SMALLEST * variances_m.max(initial=0))[::-1]
        return Spectrum(
            weights_C=self.weights_C,
            mean_C=self.mean_C,
            basis_Cm=self.basis_Cm @ rotation_mm[:, kept].astype(np.float32),
            deviations_m=np.sqrt(variances_m[kept]).astype(np.float32),
        )


def _blocks(logits_RC: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(logits_RC), _BLOCK_ROWS):
        yield logits_RC[first : first + _BLOCK_ROWS].astype(np.float32)


def _weights(logits_RC: NDArray[np.floating], temperatures: tuple[float, ...]) -> NDArray[np.float32]:
    """Mean probability outside the top few over rows and temperatures, and a floor for the rest."""
    classes = logits_RC.shape[1]
    head = min(_HEAD, classes // 8)
    mass_C = np.zeros(classes)
    for block_BC in _blocks(logits_RC):
        top_BK = np.argpartition(block_BC, classes - head - 1, axis=1)[:, classes - head :]
        for temperature in temperatures:
            tail_BC = softmax(block_BC, temperature)
            np.put_along_axis(tail_BC, top_BK, 0, axis=1)
            mass_C += tail_BC.sum(axis=0, dtype=np.float64)
    mass_C = mass_C / mass_C.sum() + _FLOOR / classes
    weights_C: NDArray[np.float32] = (mass_C / mass_C.sum()).astype(np.float32)
    return weights_C


def _mean(logits_RC: NDArray[np.floating], weights_C: NDArray[np.float32]) -> NDArray[np.float32]:
    sums_C = np.zeros(logits_RC.shape[1])
    for block_BC in _blocks(logits_RC):
        sums_C += _centred(block_BC, weights_C).sum(axis=0, dtype=np.float64)
    mean_C: NDArray[np.float32] = (sums_C / len(logits_RC)).astype(np.float32)
    return mean_C


def _centred(logits_BC: NDArray[np.float32], weights_C: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = logits_BC - (logits_BC @ weights_C)[:, None]
    return centred


def _span(vectors_nC: NDArray[np.float32]) -> NDArray[np.float32]:
    """An orthonormal basis `[C, m]` of what n vectors span, by their Gram matrix."""
    squares_n, mixing_nn = np.linalg.eigh((vectors_nC @ vectors_nC.T).astype(np.float64))
    kept = squares_n > _SMALLEST * squares_n.max(initial=0)
    mixing_nm = mixing_nn[:, kept] / np.sqrt(squares_n[kept])
    span: NDArray[np.float32] = vectors_nC.T @ mixing_nm.astype(np.float32)
    return span
