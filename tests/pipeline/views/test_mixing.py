"""Mixup and CutMix, against their papers' definitions."""

from __future__ import annotations

import numpy as np
import pytest
from tests.pipeline.views.contract import ROWS, StepContract, draws, names

from softcask.pipeline.views.cutmix import CutMixOptions
from softcask.pipeline.views.mixup import MixupOptions
from softcask.storage_schemas.errors import ConfigError


class TestMixup(StepContract):
    def step(self) -> MixupOptions:
        return MixupOptions(alpha=0.8)

    def test_a_row_is_the_weighted_mean_of_itself_and_its_partner(self) -> None:
        rows = np.random.default_rng(0).normal(size=(ROWS, 5, 4)).astype(np.float32)
        partners = np.roll(rows, -1, axis=0)
        mixed, share_B = self.step().mix(rows, partners, draws(names()))
        share = share_B.astype(np.float64)[:, None, None]
        np.testing.assert_allclose(mixed, share * rows + (1 - share) * partners, atol=1e-6)
        assert (mixed.dtype, share_B.dtype) == (np.float32, np.float32)
        assert 0 < share_B.min() < 0.2 and 0.8 < share_B.max() < 1

    def test_bytes_are_rounded_to_the_nearest(self) -> None:
        rows = self.rows()
        partners = np.roll(rows, -1, axis=0)
        mixed, share_B = self.step().mix(rows, partners, draws(names()))
        share = share_B.astype(np.float64)[:, None, None, None]
        assert mixed.dtype == np.uint8
        assert np.abs(mixed - (share * rows + (1 - share) * partners)).max() <= 0.5 + 1e-5

    def test_rows_that_are_not_mixed_are_themselves(self) -> None:
        rows = self.rows()
        mixed, share_B = MixupOptions(probability=0.5).mix(rows, np.roll(rows, 1, axis=0), draws(names()))
        alone = share_B == 1
        assert 8 <= alone.sum() <= 32
        np.testing.assert_array_equal(mixed[alone], rows[alone])

    def test_text_cannot_be_mixed(self) -> None:
        text = np.array(["a", "b"], np.dtypes.StringDType())
        with pytest.raises(ConfigError, match="'mixup' takes numbers"):
            self.step().mix(text, text, draws(names(2)))


class TestCutMix(StepContract):
    def step(self) -> CutMixOptions:
        return CutMixOptions()

    @pytest.mark.parametrize("layout", ["hwc", "chw"])
    def test_a_box_is_the_partners_and_the_share_is_that_of_the_pixels_outside(self, layout: str) -> None:
        rows = (
            np.zeros((400, 12, 10, 3), np.uint8) if layout == "hwc" else np.zeros((400, 3, 12, 10), np.uint8)
        )
        mixed, share_B = CutMixOptions(layout=layout).mix(rows, rows + 1, draws(names(400)))
        pasted = mixed if layout == "hwc" else np.moveaxis(mixed, 1, -1)
        assert (pasted == pasted[..., :1]).all()
        for box, share in zip(pasted[..., 0], share_B, strict=True):
            high, wide = box.any(axis=1), box.any(axis=0)
            np.testing.assert_array_equal(box, np.outer(high, wide))
            for inside in (high, wide):  # in one piece
                assert np.count_nonzero(np.diff(inside.astype(int), prepend=0, append=0)) in (0, 2)
            assert share == np.float32(1 - box.mean())
        assert share_B.min() < 0.25 and share_B.max() > 0.95
        # Without the edges a share is uniform here, of mean 1/2; boxes that stick out leave more of the row.
        assert 0.5 < share_B.mean() < 0.75
