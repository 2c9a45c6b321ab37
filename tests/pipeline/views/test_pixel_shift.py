"""Rows moved by whole pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.views.contract import StepContract, draws, names

from softcask.pipeline.views.pixel_shift import PixelShiftOptions
from softcask.storage_schemas.errors import ConfigError


def moved(row_HW: NDArray[np.uint8], down: int, right: int, fill: int) -> NDArray[np.uint8]:
    """A row moved pixel by pixel."""
    height, width = row_HW.shape
    made = np.full_like(row_HW, fill)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                made[y, x] = row_HW[y - down, x - right]
    return made


class TestPixelShift(StepContract):
    def step(self) -> PixelShiftOptions:
        return PixelShiftOptions(pixels=2, fill=9)

    def test_every_shift_of_up_to_two_pixels_comes_and_no_other(self) -> None:
        row = np.random.default_rng(0).integers(10, 256, (7, 6)).astype(np.uint8)
        rows = np.broadcast_to(row, (1000, 7, 6))
        made = self.step().apply(rows, draws(names(1000)))
        possible = {
            moved(row, down, right, 9).tobytes(): (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
        }
        found = [possible[new.tobytes()] for new in made]
        assert len(set(found)) == len(possible) == 25
        # 25 shifts, 40 each expected; chi-square of 24 degrees of freedom, one in a million.
        counts = np.array([found.count(shift) for shift in possible.values()])
        assert ((counts - 40) ** 2 / 40).sum() < 69

    @pytest.mark.parametrize("layout", ["hwc", "chw"])
    def test_all_channels_move_alike(self, layout: str) -> None:
        grey = self.rows()[..., 0]
        axis = -1 if layout == "hwc" else 1
        made = PixelShiftOptions(layout=layout).apply(np.stack([grey, grey], axis), draws(names()))
        expected = PixelShiftOptions().apply(grey, draws(names()))
        np.testing.assert_array_equal(made, np.stack([expected, expected], axis))

    def test_rows_that_would_be_moved_out_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="up to 12 pixels, and they have 10"):
            PixelShiftOptions(pixels=12).apply(self.rows(), draws(names()))
