"""What a `lowrank` codec keeps once a teacher, checked when it comes out of a store."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Arrays
from softcask.storage_schemas.codecs.lowrank.digits import MOST, Digits
from softcask.storage_schemas.errors import StoreError

_DTYPES = {
    "mean": "<f4",
    "basis": "<f2",
    "deviations": "<f4",
    "ones": "<f4",
    "limits": "<i2",
    "weights": "<f4",
}

_MOST_NATS = 1e6
"""No teacher's, and no float32 overflows that is made of such."""


@dataclass(frozen=True, kw_only=True, eq=False)  # not slotted: it remembers how codes lie in bytes
class Basis:
    """Mean profile, directions around it, and how far rows go along them.

    Attributes:
        mean_C: float32 mean profile, in nats.
        basis_CR: float32 with the precision of float16; orthonormal under the weights.
        deviations_R: float32, standard deviation of each coefficient, in nats.
        ones_R: float32, what a code of 1 stands for, in nats: where most that round to it lie nearer to 0.
        limits_R: int64, the largest code of each coefficient; what lies beyond is cut.
        weights_C: float32 weights of the classes, of sum 1, under which rows are projected.
    """

    mean_C: NDArray[np.float32]
    basis_CR: NDArray[np.float32]
    deviations_R: NDArray[np.float32]
    ones_R: NDArray[np.float32]
    limits_R: NDArray[np.int64]
    weights_C: NDArray[np.float32]

    @classmethod
    def from_arrays(cls, arrays: Arrays, num_classes: int, rank: int) -> Self:
        """The basis of C classes and R directions.

        Args:
            arrays: By name, untrusted.
            num_classes: C.
            rank: R.

        Raises:
            StoreError: An array is missing, of another dtype or shape, not finite, or out of its range.
        """
        shapes = {
            "mean": (num_classes,),
            "basis": (num_classes, rank),
            "deviations": (rank,),
            "ones": (rank,),
            "limits": (rank,),
            "weights": (num_classes,),
        }
        if arrays.keys() != shapes.keys():
            raise StoreError(f"codec lowrank keeps the arrays {sorted(shapes)}; found {sorted(arrays)}")
        for name, shape in shapes.items():
            _check(name, arrays[name], shape)
        limits_R = arrays["limits"].astype(np.int64)
        if not ((limits_R >= 1) & (limits_R <= MOST)).all():
            raise StoreError(f"codec lowrank has limits from 1 to {MOST}; found others")
        if (arrays["weights"] < 0).any() or not 0.99 < float(arrays["weights"].sum(dtype=np.float64)) < 1.01:
            raise StoreError("codec lowrank has weights of sum 1, none below 0; found others")
        if (np.abs(arrays["mean"]) > _MOST_NATS).any() or (arrays["ones"] > _MOST_NATS).any():
            raise StoreError(f"codec lowrank has logits within {_MOST_NATS:g} nats; found others")
        if (arrays["deviations"] <= 0).any() or (arrays["ones"] <= 0).any():
            raise StoreError("codec lowrank has deviations and ones above 0; found others")
        return cls(
            mean_C=arrays["mean"],
            basis_CR=arrays["basis"].astype(np.float32),
            deviations_R=arrays["deviations"],
            ones_R=arrays["ones"],
            limits_R=limits_R,
            weights_C=arrays["weights"],
        )

    def arrays(self) -> Arrays:
        """As they are stored."""
        return {
            name: np.asarray(getattr(self, field.name), dtype=_DTYPES[name])
            for field in fields(self)
            for name in [field.name.rpartition("_")[0]]
        }

    @cached_property
    def digits(self) -> Digits:
        """How codes lie in bytes."""
        return Digits.within(self.limits_R)

    @property
    def limit(self) -> int:
        """The largest code of any coefficient."""
        return int(self.limits_R.max(initial=1))

    def codes(self, logits_BC: NDArray[np.float32], step: float) -> NDArray[np.int64]:
        """Codes `[B, R]` of logits `[B, C]`."""
        above_BC = logits_BC - self.mean_C
        above_BC -= (above_BC * self.weights_C).sum(axis=1, keepdims=True)
        above_BC *= self.weights_C
        codes_BR = np.rint((above_BC @ self.basis_CR) / np.float32(step))
        return np.clip(codes_BR, -self.limits_R, self.limits_R).astype(np.int64)

    def coefficients(self, codes_BR: NDArray[np.int64], step: float) -> NDArray[np.float32]:
        """What codes stand for, in nats."""
        exact_BR = codes_BR.astype(np.float32) * np.float32(step)
        return np.where(np.abs(codes_BR) == 1, np.sign(exact_BR) * self.ones_R, exact_BR)

    def profile(self, coefficients_BR: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits `[B, C]` that coefficients give, up to a constant."""
        profile_BC: NDArray[np.float32] = coefficients_BR @ self.basis_CR.T
        profile_BC += self.mean_C
        return profile_BC

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Basis):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(_DTYPES[name]) or array.shape != shape:
        raise StoreError(
            f"array {name!r} of codec lowrank is {array.dtype} of shape {array.shape}; its configuration "
            f"asks for {_DTYPES[name]} of shape {shape}"
        )
    if not np.isfinite(array).all():
        raise StoreError(f"array {name!r} of codec lowrank holds what is not finite; it is damaged")
