"""Coefficients as the shortest strings of bytes: an ANS coder with a Gaussian for each coefficient.

Needs the package `constriction`, for writing and for reading. A row stands alone here, where the default
coder needs some thousand rows beside it, and reads some fifty times slower.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject, StoreError


def encode(values_BR: NDArray[np.int64], limit: int, deviations_R: NDArray[np.float64]) -> NDArray[Any]:
    """One string of bytes a row, `[B]` of dtype object.

    Args:
        values_BR: Codes, none beyond `limit`.
        limit: The largest code of any coefficient.
        deviations_R: Standard deviations, in units of a code.

    Raises:
        StoreError: `constriction` is not installed.
    """
    stream, model = _coder(limit)
    strings_B = np.empty(len(values_BR), dtype=object)
    means_R = np.zeros_like(deviations_R)
    for row, values_R in enumerate(values_BR.astype(np.int32)):
        coder = stream.AnsCoder()
        if values_R.size:
            coder.encode_reverse(values_R, model, means_R, deviations_R)
        strings_B[row] = coder.get_compressed().astype("<u4").tobytes()
    return strings_B


def decode(strings_B: NDArray[Any], limit: int, deviations_R: NDArray[np.float64]) -> NDArray[np.int64]:
    """Codes `[B, R]` of what `encode` gave.

    Raises:
        CorruptObject: A string that no encoder gives.
        StoreError: `constriction` is not installed.
    """
    stream, model = _coder(limit)
    values_BR = np.zeros((len(strings_B), len(deviations_R)), dtype=np.int64)
    means_R = np.zeros_like(deviations_R)
    for row, string in enumerate(strings_B):
        try:
            coder = stream.AnsCoder(np.frombuffer(string, dtype="<u4").astype(np.uint32))
            if deviations_R.size:
                values_BR[row] = coder.decode(model, means_R, deviations_R)
        except (ValueError, TypeError) as error:
            raise CorruptObject(f"coefficients of row {row} of a block are no ANS string: {error}") from error
        if not coder.is_empty():
            raise CorruptObject(f"coefficients of row {row} of a block go on after their end; it is damaged")
    return values_BR


def _coder(limit: int) -> tuple[Any, Any]:
    try:
        constriction = importlib.import_module("constriction")
    except ImportError as error:
        raise StoreError(
            "codec lowrank with coder 'ans' needs the package constriction, which is not installed; "
            "`pip install constriction`, or write with coder 'zstd'"
        ) from error
    return constriction.stream.stack, constriction.stream.model.QuantizedGaussian(-limit, limit)
