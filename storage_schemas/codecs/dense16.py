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
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import CodecSpec

_LEAST = np.float32(np.finfo(np.float16).min)


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
        row_max_B = logits_BC.max(axis=1)
        with np.errstate(over="ignore"):  # a range beyond float32 is cut with what is beyond float16
            shifted_BC = logits_BC - row_max_B[:, None]
        np.maximum(shifted_BC, _LEAST, out=shifted_BC)
        return {"logits": shifted_BC.astype("<f2"), "row_max": row_max_B.astype("<f4", copy=False)}

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits from `logits` `[B, C]` and `row_max` `[B]`, the same at any temperature."""
        return Decoded(
            shifted_BC=columns["logits"].astype(np.float32),
            row_max_B=columns["row_max"].astype(np.float32, copy=False),
        )
