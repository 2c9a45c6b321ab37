"""Some rows mirrored."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.views.base import Probability, StepOptions
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import Layout, image_axes


class FlipOptions(StepOptions):
    """`kind = "flip"`.

    Attributes:
        direction: `horizontal` exchanges left and right, `vertical` top and bottom.
        probability: Share of rows that are mirrored.
        layout: Of rows with channels.
    """

    kind: Literal["flip"] = "flip"
    direction: Literal["horizontal", "vertical"] = "horizontal"
    probability: Probability = 0.5
    layout: Layout = "hwc"

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """See `StepOptions.apply`."""
        axis = image_axes(inputs_B, self.layout, self.kind)[self.direction == "horizontal"]
        mirrored_B = draws.chosen(self.probability)
        result_B = inputs_B.copy()
        result_B[mirrored_B] = np.flip(inputs_B[mirrored_B], axis)
        return result_B
