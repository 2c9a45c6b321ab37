"""Rows with a box of their partner's pasted in: CutMix (Yun et al., arXiv 1905.04899)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.views.base import MixingOptions
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import Layout, image_axes


class CutMixOptions(MixingOptions):
    """`kind = "cutmix"`: a box of 1 - share of the row, around a random place, as far as it lies inside.

    The share that comes out is that of the pixels.

    Attributes:
        layout: Of rows with channels.
    """

    kind: Literal["cutmix"] = "cutmix"
    layout: Layout = "hwc"

    def mix(
        self, inputs_B: NDArray[Any], partners_B: NDArray[Any], draws: Draws
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """See `MixingOptions.mix`."""
        axes = image_axes(inputs_B, self.layout, self.kind)
        side_B = np.sqrt(1 - self._shares(draws))
        inside, area_B = np.ones((), dtype=np.bool_), np.ones(len(inputs_B), dtype=np.int64)
        for axis in axes:
            size = inputs_B.shape[axis]
            length_B = np.floor(side_B * size).astype(np.int64)
            first_B = draws.below(size) - length_B // 2
            stop_B = np.minimum(first_B + length_B, size)
            first_B = np.maximum(first_B, 0)
            inside = inside & _between(first_B, stop_B, size, axis, inputs_B.ndim)
            area_B *= stop_B - first_B
        mixed_B = np.where(inside, partners_B, inputs_B)
        pixels = inputs_B.shape[axes[0]] * inputs_B.shape[axes[1]]
        return mixed_B, ((pixels - area_B) / pixels).astype(np.float32)


def _between(
    first_B: NDArray[np.int64], stop_B: NDArray[np.int64], size: int, axis: int, axes: int
) -> NDArray[np.bool_]:
    """`[B, 1, ..., size, ..., 1]`: which places along an axis are inside."""
    place = np.arange(size)
    inside = (place >= first_B[:, None]) & (place < stop_B[:, None])
    return inside.reshape(len(first_B), *(size if each == axis else 1 for each in range(1, axes)))
