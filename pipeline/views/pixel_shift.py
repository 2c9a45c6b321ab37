"""Rows moved by a few pixels: the jitter of the paper's MNIST teacher (section 3 of arXiv 1503.02531)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.views.base import StepOptions
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import Layout, image_axes
from softcask.storage_schemas.errors import ConfigError


class PixelShiftOptions(StepOptions):
    """`kind = "pixel_shift"`: both axes by whole pixels, each of -pixels to pixels equally likely.

    Attributes:
        pixels: How far at most.
        fill: What comes in at the edges.
        layout: Of rows with channels.
    """

    kind: Literal["pixel_shift"] = "pixel_shift"
    pixels: int = Field(default=2, ge=1, le=1024)
    fill: float = 0.0
    layout: Layout = "hwc"

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """See `StepOptions.apply`."""
        axes = image_axes(inputs_B, self.layout, self.kind)
        if self.pixels >= (smallest := min(inputs_B.shape[axis] for axis in axes)):
            raise ConfigError(
                f"a view's step 'pixel_shift' moves rows by up to {self.pixels} pixels, and they have "
                f"{smallest}"
            )
        down_B, right_B = (draws.below(2 * self.pixels + 1) for _ in range(2))
        around = [(self.pixels, self.pixels) if axis in axes else (0, 0) for axis in range(inputs_B.ndim)]
        padded_B = np.pad(inputs_B, around, constant_values=self.fill)
        windows_B = sliding_window_view(padded_B, [inputs_B.shape[axis] for axis in axes], axes)
        batch, top_B, left_B = np.arange(len(inputs_B)), 2 * self.pixels - down_B, 2 * self.pixels - right_B
        if axes == (2, 3):
            return windows_B[batch, :, top_B, left_B]
        moved_B = windows_B[batch, top_B, left_B]  # channels stand before height and width here
        return moved_B if inputs_B.ndim == 3 else np.ascontiguousarray(np.moveaxis(moved_B, 1, -1))
