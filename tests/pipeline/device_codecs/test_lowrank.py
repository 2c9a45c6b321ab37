from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.device_codecs.contract import DeviceCodecContract
from tests.storage_schemas.codecs.lowrank_codecs import lowrank

from softcask.pipeline.device_codecs.base import DeviceCodec, to_arrays
from softcask.pipeline.device_codecs.registry import device_codec
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.errors import StoreError


class TestDeviceLowrank(DeviceCodecContract):
    """The contract, and numpy's coefficients."""

    exact = False
    tolerance = 2e-5

    @pytest.fixture
    def codec(self) -> Codec:
        return lowrank(self.classes, rank=12, head=7)

    def test_its_coefficients_are_numpys_but_for_one_in_a_thousand_by_one_step(
        self, codec: Lowrank, twin: DeviceCodec
    ) -> None:
        logits_BC = np.random.default_rng(2).normal(0, 2, (300, self.classes)).astype(np.float32)
        ours_BR = codec.sparse(to_arrays(twin.encode(torch.from_numpy(logits_BC)))).coefficients_BR
        numpys_BR = codec.sparse(codec.encode(logits_BC)).coefficients_BR
        assert (ours_BR != numpys_BR).mean() < 1e-3
        assert np.abs(ours_BR - numpys_BR).max() <= codec.settings.step * 1.01

    def test_its_heads_are_numpys_to_one_code(self, codec: Lowrank, twin: DeviceCodec) -> None:
        logits_BC = np.random.default_rng(2).normal(0, 2, (300, self.classes)).astype(np.float32)
        ours = codec.sparse(to_arrays(twin.encode(torch.from_numpy(logits_BC)))).head
        numpys = codec.sparse(codec.encode(logits_BC)).head
        same_B = (ours.classes_BK == numpys.classes_BK).all(axis=1)
        assert same_B.mean() > 0.99
        assert (ours.top_B == numpys.top_B)[same_B].all()
        off_BK = np.abs(ours.residuals_BK - numpys.residuals_BK)[same_B]
        step_B1 = np.abs(numpys.residuals_BK[same_B]).max(axis=1, keepdims=True) / 50
        assert (off_BK <= step_B1).mean() > 0.99


class TestDeviceLowrankOfRankZero(DeviceCodecContract):
    """The contract, of a head of one over the mean profile."""

    exact = False
    tolerance = 2e-5

    @pytest.fixture
    def codec(self) -> Codec:
        return lowrank(self.classes, rank=0, head=1)


def test_bytes_that_no_encoder_writes_do_not_end_the_process() -> None:
    twin = device_codec(lowrank(40), "cpu")
    columns = twin.encode(torch.zeros(3, 40))
    generator = np.random.default_rng(1)
    for _ in range(20):
        noise = {
            name: torch.from_numpy(generator.integers(0, 256, tuple(values.shape), dtype=np.uint8))
            for name, values in columns.items()
        }
        assert tuple(twin.decode(noise).shape) == (3, 40)


def test_a_codec_without_arrays_or_by_row_has_no_twin() -> None:
    for codec in (Lowrank.from_spec(lowrank(40).to_spec()), lowrank(40, coder="ans")):
        with pytest.raises(StoreError, match="runs on devices"):
            device_codec(codec, "cpu")


def test_a_row_keeps_its_soft_targets_at_every_temperature() -> None:
    codec = lowrank(300, rank=12, head=20)
    logits_BC: NDArray[np.float32] = np.random.default_rng(5).normal(0, 2, (8, 300)).astype(np.float32)
    twin = device_codec(codec, "cpu")
    ours_BC = twin.decode(twin.encode(torch.from_numpy(logits_BC))).double()
    numpys_BC = torch.from_numpy(codec.decode(codec.encode(logits_BC)).shifted_BC).double()
    exact_BC = torch.from_numpy(logits_BC).double()
    for temperature in (0.5, 1.0, 20.0):
        p_BC = torch.softmax(exact_BC / temperature, dim=1)
        ours, numpys = (
            (p_BC * (p_BC.log() - torch.log_softmax(values_BC / temperature, dim=1))).sum(dim=1).mean()
            for values_BC in (ours_BC, numpys_BC)
        )
        torch.testing.assert_close(ours, numpys, rtol=1e-3, atol=1e-9)
