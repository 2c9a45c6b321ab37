"""A box of random size, shape and place, brought to one size (Inception; torchvision's RandomResizedCrop)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from softcask.pipeline.views.base import StepOptions
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import Layout, from_hwc, image_axes, resampled, to_hwc
from softcask.storage_schemas.errors import ConfigError

_ATTEMPTS = 10

Positive = Annotated[float, Field(gt=0, le=1000)]
Size = Annotated[int, Field(ge=1, le=4096)]


class RandomResizedCropOptions(StepOptions):
    """`kind = "random_resized_crop"`.

    A box's area is a share of the row's, equally likely between two bounds, and the logarithm of its ratio of
    width to height likewise. What does not fit is drawn again, up to 10 times; then the box is the largest
    in the middle whose ratio is within bounds. Bilinear, without smoothing before: see `images.resampled`.

    Attributes:
        height: Of the row that comes out.
        width: Of the row that comes out.
        scale: Least and largest share of the area.
        ratio: Least and largest width by height.
        layout: Of rows with channels.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    height: Size
    width: Size
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)
    layout: Layout = "hwc"

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (least, most) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > most:
                raise ConfigError(f"{name} must be least and largest, found [{least:g}, {most:g}]")
        if self.scale[1] > 1:
            raise ConfigError(f"scale is a share of the row, up to 1; found {self.scale[1]:g}")
        return self

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """See `StepOptions.apply`."""
        height_axis, width_axis = image_axes(inputs_B, self.layout, self.kind)
        boxes_B4 = self._boxes(inputs_B.shape[height_axis], inputs_B.shape[width_axis], draws)
        resized = resampled(to_hwc(inputs_B, self.layout), boxes_B4, self.height, self.width)
        return from_hwc(resized, inputs_B.ndim - 1, self.layout)

    def _boxes(self, height: int, width: int, draws: Draws) -> NDArray[np.int64]:
        """Top, left, height and width `[B, 4]`; a row's do not depend on how often others are drawn again."""
        boxes_B4 = np.tile(np.array(self._middle(height, width), dtype=np.int64), (len(draws), 1))
        open_B = np.ones(len(draws), dtype=np.bool_)
        for _ in range(_ATTEMPTS):
            area_B, ratio_B, down_B, right_B = draws.uniform(4).T
            area_B = height * width * (self.scale[0] + area_B * (self.scale[1] - self.scale[0]))
            least, most = (math.log(bound) for bound in self.ratio)
            ratio_B = np.exp(least + ratio_B * (most - least))
            high_B, wide_B = np.rint(np.sqrt(area_B / ratio_B)), np.rint(np.sqrt(area_B * ratio_B))
            fits_B = open_B & (high_B >= 1) & (wide_B >= 1) & (high_B <= height) & (wide_B <= width)
            top_B, left_B = (
                np.floor(down_B * (height - high_B + 1)),
                np.floor(right_B * (width - wide_B + 1)),
            )
            boxes_B4[fits_B] = np.stack([top_B, left_B, high_B, wide_B], axis=1)[fits_B].astype(np.int64)
            open_B &= ~fits_B
            if not open_B.any():
                break
        return boxes_B4

    def _middle(self, height: int, width: int) -> tuple[int, int, int, int]:
        least, most = self.ratio
        high, wide = height, width
        if width / height < least:
            high = min(height, round(width / least))
        elif width / height > most:
            wide = min(width, round(height * most))
        return (height - high) // 2, (width - wide) // 2, max(high, 1), max(wide, 1)
