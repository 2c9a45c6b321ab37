"""Numpy or torch: the formulas of this room are written once, in the names that both libraries share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

ArrayT = TypeVar("ArrayT", NDArray[Any], "torch.Tensor")
"""A numpy array or a torch tensor; what is made of one is one."""

Array = Any
"""Either, inside: the two libraries' stubs have no common type."""


def namespace(array: Array) -> Any:
    """The library that an array is of.

    Raises:
        TypeError: It is of neither.
    """
    if isinstance(array, np.ndarray):
        return np
    if type(array).__module__.partition(".")[0] == "torch":
        import torch

        return torch
    raise TypeError(f"expected a numpy array or a torch tensor, found {type(array).__name__}")


def double(array: Array) -> Array:
    """The same in float64, where it is."""
    xp = namespace(array)
    return xp.asarray(array, dtype=xp.float64, device=array.device)


def like(array: Array, values: NDArray[Any]) -> Array:
    """Values as an array of the same library, on the same device."""
    return namespace(array).asarray(values, device=array.device)


def logsumexp(values: Array) -> Array:
    """`log sum exp` over the last axis, which is left out; -inf where all are."""
    xp = namespace(values)
    top = xp.amax(values, -1)
    top = xp.where(xp.isfinite(top), top, 0.0)
    return log(xp.sum(xp.exp(values - top[..., None]), -1)) + top


def log(values: Array) -> Array:
    """The logarithm; of 0, -inf and no warning."""
    xp = namespace(values)
    return xp.where(values > 0, xp.log(xp.where(values > 0, values, 1.0)), -xp.inf)
