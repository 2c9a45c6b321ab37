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
from softcask.storage_schemas.codecs.dense16 import Dense16

CODEC = Dense16()
TWIN = device_codec(CODEC, "cpu")
SHAPES = st.tuples(st.integers(1, 5), st.integers(2, 9))


class TestDeviceDense16(DeviceCodecContract):
    """The contract."""

    @pytest.fixture
    def codec(self) -> Codec:
        return CODEC


@given(
    logits_BC=hnp.arrays(
        np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
)
def test_any_logits_give_numpys_bytes_there_and_back(logits_BC: NDArray[np.float32]) -> None:
    expected = CODEC.encode(logits_BC)
    columns = to_arrays(TWIN.encode(torch.from_numpy(logits_BC)))
    for name, values in expected.items():
        assert columns[name].tobytes() == values.tobytes()
    decoded_BC = TWIN.decode(to_tensors(columns, "cpu"))
    assert decoded_BC.numpy().tobytes() == CODEC.decode(expected).shifted_BC.tobytes()
