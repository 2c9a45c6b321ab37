"""`dense16`: every logit as half precision below its row's maximum.

Subtracting the maximum puts the classes that carry probability where fp16 is finest; KL(p_T || decoded p_T)
stays under 1e-6 nats for T in [0.5, 20] and logits as classifiers give them. (The worst that 1000 logits can
be arranged to, one class against equals that all round one way, is 1.5e-6.) The maximum is kept in float32
beside it, for those who match raw logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Arrays, Column, Columns, Container, Decoded
from softcask.storage_schemas.codecs.half import below_maximum, from_half, row_blocks, to_half
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec

_NEGATIVE_INFINITY = 0xFC00


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense16:
    """fp16 of `z - max(z)`, and `max(z)` in float32: 2 C + 4 bytes a row."""

    name: ClassVar[str] = "dense16"
    container: ClassVar[Container] = "zarr"
    keeps_logits: ClassVar[bool] = True
    keeps_row_max: ClassVar[bool] = True

    @property
    def temperatures(self) -> tuple[float, float]:
        """Those that the bound on KL was worked out for."""
        return 0.5, 20.0

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        """The codec that `spec` describes; it has no configuration.

        Raises:
            StoreError: There is a configuration, or another container than Zarr.
        """
        if spec.configuration or spec.arrays or spec.container != cls.container:
            raise StoreError(f"codec dense16 lies in Zarr without configuration; the store says {spec!r}")
        return cls()

    def to_spec(self) -> CodecSpec:
        """Name and container."""
        return CodecSpec(name=self.name, container=self.container)

    def arrays(self) -> Arrays:
        """Nothing is kept once."""
        return {}

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """`logits` `[row, class]` in float16 and `row_max` `[row]` in float32."""
        return (
            Column(
                name="logits",
                dtype=np.dtype("<f2"),
                row_shape=(num_classes,),
                dimension_names=("row", "class"),
            ),
            Column(name="row_max", dtype=np.dtype("<f4"), row_shape=(), dimension_names=("row",)),
        )

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`; nothing is kept as more than 65504 below the maximum."""
        half_BC = np.empty(logits_BC.shape, dtype="<f2")
        row_max_B = np.empty(len(logits_BC), dtype="<f4")
        for rows in row_blocks(*logits_BC.shape):
            shifted_bC, row_max_B[rows] = below_maximum(logits_BC[rows])
            half_BC[rows] = to_half(shifted_bC)
        return {"logits": half_BC, "row_max": row_max_B}

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits from `logits` `[B, C]` and `row_max` `[B]`, the same at any temperature.

        Raises:
            CorruptObject: A row is not finite, or its largest logit is not 0.
        """
        half_BC, row_max_B = columns["logits"], columns["row_max"]
        shifted_BC = np.empty(half_BC.shape, dtype=np.float32)
        sound = bool(np.isfinite(row_max_B).all())
        for rows in row_blocks(*half_BC.shape):
            sound = sound and _is_below_maximum(half_BC[rows])
            from_half(half_BC[rows], out=shifted_BC[rows])
        if not sound:
            raise CorruptObject("logits of dense16 are not finite with a largest one of 0; they are damaged")
        return Decoded(shifted_BC=shifted_BC, row_max_B=row_max_B.astype(np.float32, copy=False))


def _is_below_maximum(half_BC: NDArray[np.float16]) -> bool:
    # As integers: the sign is the highest bit, and -inf and NaN lie beyond every finite number.
    largest_B = half_BC.view(np.int16).max(axis=1)
    return not largest_B.any() and bool(half_BC.view(np.uint16).max() < _NEGATIVE_INFINITY)
