from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tests.pipeline.device_codecs.contract import DeviceCodecContract

from softcask.pipeline.device_codecs.base import to_arrays, to_tensors
from softcask.pipeline.device_codecs.registry import device_codec
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8

CODEC = Dense8()
TWIN = device_codec(CODEC, "cpu")
SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 140))
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR_TIES = st.floats(-(2.0**-20), 2.0**-20, width=32)


class TestDeviceDense8(DeviceCodecContract):
    """The contract, with a last block that is not full."""

    @pytest.fixture
    def codec(self) -> Codec:
        return CODEC


class TestDeviceDense8OfFullBlocks(TestDeviceDense8):
    """The contract, all blocks full."""

    classes = 128


@given(logits_BC=st.one_of(*(hnp.arrays(np.float32, SHAPES, elements=some) for some in (ANY, NEAR_TIES))))
def test_any_logits_give_numpys_bytes_there_and_back(logits_BC: NDArray[np.float32]) -> None:
    expected = CODEC.encode(logits_BC)
    columns = to_arrays(TWIN.encode(torch.from_numpy(logits_BC)))
    for name, values in expected.items():
        assert columns[name].tobytes() == values.tobytes()
    decoded_BC = TWIN.decode(to_tensors(columns, "cpu"))
    assert decoded_BC.numpy().tobytes() == CODEC.decode(expected).shifted_BC.tobytes()
