"""Mirrored rows."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from tests.pipeline.views.contract import StepContract, draws, names

from softcask.pipeline.views.flip import FlipOptions
from softcask.storage_schemas.errors import ConfigError


class TestFlip(StepContract):
    def step(self) -> FlipOptions:
        return FlipOptions(probability=0.7)

    @pytest.mark.parametrize(("direction", "axis"), [("horizontal", 1), ("vertical", 0)])
    def test_each_row_is_itself_or_its_mirror_image(self, direction: str, axis: int) -> None:
        rows = self.rows()
        made = FlipOptions(direction=direction).apply(rows, draws(names()))
        mirrored = [np.array_equal(new, np.flip(row, axis)) for row, new in zip(rows, made, strict=True)]
        kept = [np.array_equal(new, row) for row, new in zip(rows, made, strict=True)]
        assert np.logical_xor(mirrored, kept).all()
        assert 8 <= sum(mirrored) <= 32  # of 40 at one half: outside once in 100,000

    def test_channels_may_stand_first_or_not_be_there(self) -> None:
        always = FlipOptions(probability=1.0, layout="chw")
        rows = np.moveaxis(self.rows(), -1, 1)
        np.testing.assert_array_equal(always.apply(rows, draws(names())), rows[..., ::-1])
        grey = self.rows()[..., 0]
        np.testing.assert_array_equal(
            FlipOptions(probability=1.0).apply(grey, draws(names())), grey[..., ::-1]
        )

    def test_what_is_no_image_is_refused_by_name(self) -> None:
        with pytest.raises(ConfigError, match=r"step 'flip' takes images.*these rows are float32 \[784\]"):
            self.step().apply(np.zeros((2, 784), np.float32), draws(names(2)))
        with pytest.raises(ConfigError, match="these rows are text"):
            self.step().apply(np.array(["a", "b"], np.dtypes.StringDType()), draws(names(2)))

    def test_a_probability_is_one(self) -> None:
        with pytest.raises(ValidationError):
            FlipOptions(probability=1.5)
