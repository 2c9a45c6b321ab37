"""`dense8`: every logit as eight bits between the largest and the least of its block of 64 classes.

A block's own range is narrower than the row's, and one class that stands out widens the steps of 63 others
only. Codes count steps down from the block's top, so that the row's largest logit comes back exactly.
KL(p_T || decoded p_T) is about step^2 / (24 T^2) nats, half the variance of rounding, where probability is
spread over many classes, and less where it is not: 2e-5 to 5e-5 at T=1 for logits as classifiers with 1000
classes give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Arrays, Column, Columns, Container, Decoded
from softcask.storage_schemas.codecs.half import below_maximum, row_blocks
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec

BLOCK = 64
"""Classes that share a top and a step; the last block of a row has the rest."""

STEPS = np.float32(255)
LEAST_HALF = np.float32(2.0**-24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense8:
    """`z - max(z)` as `top - step * code` of its block: C + 4 ceil(C / 64) + 4 bytes a row."""

    name: ClassVar[str] = "dense8"
    container: ClassVar[Container] = "zarr"
    keeps_logits: ClassVar[bool] = True
    keeps_row_max: ClassVar[bool] = True

    @property
    def temperatures(self) -> tuple[float, float]:
        """Those that it was measured at."""
        return 0.5, 20.0

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        """The codec that `spec` describes; it has no configuration.

        Raises:
            StoreError: There is a configuration, or another container than Zarr.
        """
        if spec.configuration or spec.arrays or spec.container != cls.container:
            raise StoreError(f"codec dense8 lies in Zarr without configuration; the store says {spec!r}")
        return cls()

    def to_spec(self) -> CodecSpec:
        """Name and container."""
        return CodecSpec(name=self.name, container=self.container)

    def arrays(self) -> Arrays:
        """Nothing is kept once."""
        return {}

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """`codes` `[row, class]`, `tops` and `steps` `[row, block]`, and `row_max` `[row]`."""
        half, blocks = np.dtype("<f2"), (num_blocks(num_classes),)
        by_block = ("row", "block")
        return (
            Column(
                name="codes",
                dtype=np.dtype("|u1"),
                row_shape=(num_classes,),
                dimension_names=("row", "class"),
            ),
            Column(name="tops", dtype=half, row_shape=blocks, dimension_names=by_block),
            Column(name="steps", dtype=half, row_shape=blocks, dimension_names=by_block),
            Column(name="row_max", dtype=np.dtype("<f4"), row_shape=(), dimension_names=("row",)),
        )

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`; nothing is kept as more than 65504 below the maximum."""
        B, C = logits_BC.shape
        columns = {column.name: np.empty((B, *column.row_shape), column.dtype) for column in self.columns(C)}
        for rows in row_blocks(B, C):
            for name, values in _encoded(logits_BC[rows]).items():
                columns[name][rows] = values
        return columns

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits from the columns, the same at any temperature.

        Raises:
            CorruptObject: A top or a step is not finite or of another sign, or no logit of a row is 0.
        """
        codes_BC, row_max_B = columns["codes"], columns["row_max"]
        tops_BG, steps_BG = (columns[name].astype(np.float32) for name in ("tops", "steps"))
        _check(tops_BG, steps_BG, row_max_B)
        shifted_BC = np.empty(codes_BC.shape, dtype=np.float32)
        largest = np.float32(0)
        for rows in row_blocks(*codes_BC.shape):
            part_BC = shifted_BC[rows]
            np.multiply(codes_BC[rows], spread(steps_BG[rows], part_BC.shape[1]), out=part_BC)
            np.subtract(spread(tops_BG[rows], part_BC.shape[1]), part_BC, out=part_BC)
            largest = min(largest, part_BC.max(axis=1).min())
        if largest < 0:
            raise CorruptObject("a row of dense8 has no logit of 0, its largest; it is damaged")
        return Decoded(shifted_BC=shifted_BC, row_max_B=row_max_B.astype(np.float32, copy=False))


def num_blocks(num_classes: int) -> int:
    """Blocks of a row."""
    return -(-num_classes // BLOCK)


def spread(values_BG: NDArray[np.float32], num_classes: int) -> NDArray[np.float32]:
    """Each block's value for each of its classes, `[B, C]`."""
    return np.repeat(values_BG, BLOCK, axis=1)[:, :num_classes]


def _encoded(logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    shifted_BC, row_max_B = below_maximum(logits_BC)
    C = shifted_BC.shape[1]
    starts_G = np.arange(0, C, BLOCK)
    tops_BG = _tops(np.maximum.reduceat(shifted_BC, starts_G, axis=1))
    least_BG = np.minimum.reduceat(shifted_BC, starts_G, axis=1)
    steps_BG = _steps(tops_BG.astype(np.float32) - least_BG)
    best_B = shifted_BC.argmax(axis=1)
    np.subtract(spread(tops_BG.astype(np.float32), C), shifted_BC, out=shifted_BC)
    shifted_BC /= spread(steps_BG.astype(np.float32), C)
    codes_BC = np.rint(shifted_BC, out=shifted_BC).astype(np.uint8)
    _keep_best(codes_BC, best_B)
    return {"codes": codes_BC, "tops": tops_BG, "steps": steps_BG, "row_max": row_max_B}


def _tops(largest_BG: NDArray[np.float32]) -> NDArray[np.float16]:
    """Largest logits of blocks in half precision, not less than they are; 0 for a row's maximum alone."""
    tops_BG = largest_BG.astype("<f2")
    too_low = tops_BG.astype(np.float32) < largest_BG
    tops_BG[too_low] = np.nextafter(tops_BG[too_low], np.float16(0))
    np.minimum(tops_BG, -LEAST_HALF.astype("<f2"), out=tops_BG, where=largest_BG < 0)
    return tops_BG


def _steps(ranges_BG: NDArray[np.float32]) -> NDArray[np.float16]:
    """The least steps in half precision, 255 of which are not less than a block's range.

    None is 0, nor so small that a top which lies `LEAST_HALF` below its block rounds to a step of -1.
    """
    exact_BG = np.maximum(ranges_BG / STEPS, 2 * LEAST_HALF)
    steps_BG: NDArray[np.float16] = exact_BG.astype("<f2")
    too_low = steps_BG.astype(np.float32) < exact_BG
    steps_BG[too_low] = np.nextafter(steps_BG[too_low], np.float16(np.inf))
    return steps_BG


def _keep_best(codes_BC: NDArray[np.uint8], best_B: NDArray[np.int64]) -> None:
    """Put those a step down that rounding raised to the maximum and that stand before it in its block.

    The first of equals is the most probable class; those after it may equal it, and blocks without it cannot.
    """
    places_BK = (best_B // BLOCK * BLOCK)[:, None] + np.arange(BLOCK)
    before_BK = places_BK < best_B[:, None]
    np.minimum(places_BK, best_B[:, None], out=places_BK)
    places_BK += (np.arange(len(best_B)) * codes_BC.shape[1])[:, None]
    raised_BK = codes_BC.reshape(-1).take(places_BK) == 0
    raised_BK &= before_BK
    codes_BC.reshape(-1)[places_BK[raised_BK]] = 1


def _check(
    tops_BG: NDArray[np.float32], steps_BG: NDArray[np.float32], row_max_B: NDArray[np.floating]
) -> None:
    # Compared so that NaN fails.
    sound = ((tops_BG <= 0) & (tops_BG > -np.inf) & (steps_BG > 0) & (steps_BG < np.inf)).all()
    if not (sound and np.isfinite(row_max_B).all()):
        raise CorruptObject("a block of dense8 has a top above 0, no step or a value that is not finite")
