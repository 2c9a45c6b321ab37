"""Boxes of rows, brought to one size."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from tests.pipeline.views.contract import StepContract, draws, names

from softcask.pipeline.views.images import resampled
from softcask.pipeline.views.random_resized_crop import RandomResizedCropOptions


class TestRandomResizedCrop(StepContract):
    def step(self) -> RandomResizedCropOptions:
        return RandomResizedCropOptions(height=8, width=6)

    def test_rows_get_the_size_that_was_asked_for_in_their_own_layout_and_dtype(self) -> None:
        rows = self.rows()
        hwc = self.step().apply(rows, draws(names()))
        assert (hwc.shape, hwc.dtype) == ((40, 8, 6, 3), np.uint8)
        chw = RandomResizedCropOptions(height=8, width=6, layout="chw")
        np.testing.assert_array_equal(
            chw.apply(np.moveaxis(rows, -1, 1), draws(names())), np.moveaxis(hwc, -1, 1)
        )
        grey = self.step().apply(rows[..., 1], draws(names()))
        np.testing.assert_array_equal(grey, hwc[..., 1])

    def test_boxes_lie_inside_and_have_the_area_and_the_ratio_asked_for(self) -> None:
        options = RandomResizedCropOptions(height=8, width=8, scale=(0.2, 0.35), ratio=(0.5, 2.0))
        # None of these is too high or too wide, so that none is drawn again.
        top, left, height, width = options._boxes(300, 400, draws(names(2000))).T
        assert (top >= 0).all() and (left >= 0).all()
        assert (top + height <= 300).all() and (left + width <= 400).all()
        area = height * width / (300 * 400)
        assert 0.195 < area.min() < 0.21 and 0.34 < area.max() < 0.355
        assert area.mean() == pytest.approx(0.275, abs=0.005)
        ratio = width / height
        assert 0.49 < ratio.min() < 0.52 and 1.92 < ratio.max() < 2.04
        assert np.log(ratio).mean() == pytest.approx(0, abs=0.03)
        assert len(np.unique(top)) > 100 and len(np.unique(left)) > 100

    def test_where_nothing_fits_the_middle_is_taken(self) -> None:
        tall = RandomResizedCropOptions(height=4, width=4, scale=(1.0, 1.0), ratio=(1.0, 1.0))
        boxes = tall._boxes(30, 10, draws(names(5)))
        assert boxes.tolist() == [[10, 0, 10, 10]] * 5

    def test_a_box_of_the_whole_row_at_its_own_size_is_the_row(self) -> None:
        rows = self.rows()
        box = np.tile([0, 0, 12, 10], (len(rows), 1))
        np.testing.assert_array_equal(resampled(rows, box, 12, 10), rows)

    def test_interpolation_is_torchs_without_smoothing(self) -> None:
        torch = pytest.importorskip("torch")
        rows = np.random.default_rng(2).normal(size=(5, 13, 17, 3)).astype(np.float32)
        boxes = np.array([[0, 0, 13, 17], [2, 3, 5, 9], [1, 1, 1, 1], [6, 0, 7, 4], [0, 10, 13, 7]])
        made = resampled(rows, boxes, 9, 11)
        for row, (top, left, height, width), new in zip(rows, boxes, made, strict=True):
            box = (
                torch.from_numpy(row[top : top + height, left : left + width]).permute(2, 0, 1)[None].double()
            )
            expected = torch.nn.functional.interpolate(box, (9, 11), mode="bilinear", align_corners=False)
            np.testing.assert_allclose(new, expected[0].permute(1, 2, 0).numpy(), atol=2e-6)

    def test_whole_numbers_are_rounded_to_the_nearest(self) -> None:
        rows = self.rows()
        box = np.tile([1, 2, 7, 5], (len(rows), 1))
        exact = resampled(rows.astype(np.float64), box, 9, 9)
        assert np.abs(resampled(rows, box, 9, 9) - exact).max() <= 0.5 + 1e-4

    @pytest.mark.parametrize("wrong", [{"scale": (0.5, 0.2)}, {"scale": (0.5, 1.2)}, {"ratio": (2, 1)}])
    def test_bounds_in_the_wrong_order_or_beyond_the_row_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            RandomResizedCropOptions(height=8, width=8, **wrong)
