"""How DistillKit packs log-probabilities and classes into bytes, undone with numpy.

After `distillkit/compression` of arcee-ai/DistillKit: exact values, a polynomial over the places of the
others, what that leaves in bins of few bits with a scale each; all that, if asked, of the differences along a
row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from softcask.pipeline.exchange.importers.base import existing
from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ExchangeError

Dtype = Literal["float16", "bfloat16", "float32", "float64"]
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


class Bin(Options):
    """Some residuals, quantised with one scale."""

    scale_dtype: Dtype
    element_bits: int = Field(ge=1, le=32)
    num_elements: int = Field(ge=1, le=1 << 16)

    @property
    def size(self) -> int:
        """Bytes of scale and elements."""
        return _BYTES[self.scale_dtype] + -(-self.element_bits * self.num_elements // 8)


class Packing(Options):
    """DistillKit's `DistributionQuantizationConfig`, field by field."""

    d: int = Field(ge=2, le=1 << 20)
    k: int = Field(ge=1, le=1 << 16)
    exact_k: int = Field(ge=0)
    exact_dtype: Dtype = "float32"
    polynomial_terms: tuple[int | Literal["sqrt", "exp"], ...] | None = None
    term_dtype: Dtype = "float32"
    residual_bins: tuple[Bin, ...]
    delta_encoding: bool = True
    error_diffusion: bool = False
    normalize_t: bool = False

    @property
    def index_bits(self) -> int:
        """Bits of a class."""
        return int(np.ceil(np.log2(np.float32(self.d))))

    @property
    def index_bytes(self) -> int:
        """Bytes of a position's classes."""
        return -(-self.k * self.index_bits // 8)

    @property
    def value_bytes(self) -> int:
        """Bytes of a position's log-probabilities."""
        exact = self.exact_k * _BYTES[self.exact_dtype]
        terms = len(self.polynomial_terms or ()) * _BYTES[self.term_dtype]
        return exact + terms + sum(part.size for part in self.residual_bins)

    def classes(self, packed_NB: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Classes `[N, k]` of packed bytes `[N, index_bytes]`."""
        return _unpacked(packed_NB, self.index_bits, self.k)

    def log_probs(self, packed_NB: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Log-probabilities `[N, k]` of packed bytes `[N, value_bytes]`; computed in float32, as there.

        What overflows is infinite or NaN, and who checks the rows finds it.
        """
        with np.errstate(all="ignore"):
            return self._log_probs(packed_NB)

    def _log_probs(self, packed_NB: NDArray[np.uint8]) -> NDArray[np.float64]:
        take = _Bytes(packed_NB)
        exact = take.floats(self.exact_dtype, self.exact_k)
        rest = np.zeros((len(packed_NB), self.k - self.exact_k), dtype=np.float32)
        if self.polynomial_terms:
            coefficients = take.floats(self.term_dtype, len(self.polynomial_terms))
            rest += (coefficients[:, None, :] * self._terms(rest.shape[1])).sum(axis=-1)
        first = 0
        for part in self.residual_bins:
            scale = take.floats(part.scale_dtype, 1)
            codes = _unpacked(
                take.bytes(part.size - _BYTES[part.scale_dtype]), part.element_bits, part.num_elements
            )
            levels = codes * 2 - 1 if part.element_bits == 1 else codes - (1 << (part.element_bits - 1))
            rest[:, first : first + part.num_elements] += levels.astype(np.float32) * scale
            first += part.num_elements
        values = np.concatenate([exact, rest], axis=1)
        return (
            np.cumsum(values, axis=1, dtype=np.float64) if self.delta_encoding else values.astype(np.float64)
        )

    def _terms(self, count: int) -> NDArray[np.float32]:
        points = np.linspace(0, 1 if self.normalize_t else max(0, count - 1), count).astype(np.float32)
        functions: dict[str, Any] = {"sqrt": np.sqrt, "exp": np.exp}
        columns = [
            functions[t](points) if isinstance(t, str) else points**t for t in self.polynomial_terms or ()
        ]
        return np.stack(columns, axis=-1).astype(np.float32)


def read_packing(path: Path) -> Packing:
    """DistillKit's settings.

    Raises:
        ExchangeError: No such file, or not such settings.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ExchangeError(
            f"{path} is YAML, and pyyaml is not installed: pip install 'softcask[exchange]'"
        ) from error
    text = existing(
        path, "file; DistillKit writes it beside the Parquet, or name it with --settings"
    ).read_text()
    try:
        packing = Packing.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ExchangeError(f"{path}: not DistillKit's settings: {problems}") from error
    except yaml.YAMLError as error:
        raise ExchangeError(f"{path}: not DistillKit's settings: {error}") from error
    values = packing.exact_k + sum(part.num_elements for part in packing.residual_bins)
    if values > packing.k or packing.k > packing.d:
        raise ExchangeError(f"{path}: more values than k = {packing.k}, or more than d = {packing.d} classes")
    return packing


def _unpacked(packed_NB: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """Numbers `[N, count]` of `bits` bits each, the highest bit of each first."""
    loose = np.unpackbits(packed_NB, axis=1)[:, : bits * count].reshape(len(packed_NB), count, bits)
    values = np.zeros(loose.shape[:2], dtype=np.int64)
    for bit in range(bits):
        values = (values << 1) | loose[:, :, bit]
    return values


class _Bytes:
    """Takes pieces off the front of rows of bytes."""

    def __init__(self, packed_NB: NDArray[np.uint8]) -> None:
        self._packed_NB, self._at = packed_NB, 0

    def bytes(self, count: int) -> NDArray[np.uint8]:
        self._at += count
        return self._packed_NB[:, self._at - count : self._at]

    def floats(self, dtype: str, count: int) -> NDArray[np.float32]:
        raw = np.ascontiguousarray(self.bytes(count * _BYTES[dtype]))
        if dtype == "bfloat16":
            wide = raw.view("<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(len(raw), count)
        return raw.view(np.dtype(dtype).newbyteorder("<")).astype(np.float32).reshape(len(raw), count)
