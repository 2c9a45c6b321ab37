from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tests.pipeline.device_codecs.contract import DeviceCodecContract

from softcask.pipeline.device_codecs.base import DeviceCodec, to_arrays, to_tensors
from softcask.pipeline.device_codecs.registry import device_codec
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.topk import Settings, TopK


def topk(classes: int, head: int) -> TopK:
    return TopK(settings=Settings(num_classes=classes, head_size=head))


class TestDeviceTopK(DeviceCodecContract):
    """The contract, and numpy's head."""

    exact = False
    tolerance = 2e-6

    @pytest.fixture
    def codec(self) -> Codec:
        return topk(self.classes, 9)

    def test_its_head_is_numpys_and_its_tail_within_a_rounding(
        self, codec: Codec, twin: DeviceCodec, logits_BC: NDArray[np.float32]
    ) -> None:
        columns, expected = to_arrays(twin.encode(torch.from_numpy(logits_BC))), codec.encode(logits_BC)
        for name in ("classes", "logits"):
            assert columns[name].tobytes() == expected[name].tobytes()
        np.testing.assert_allclose(columns["tail"], expected["tail"], rtol=2.0**-10, atol=1e-6)


class TestDeviceTopKWithoutTail(TestDeviceTopK):
    """All classes are in the head."""

    classes = 20

    @pytest.fixture
    def codec(self) -> Codec:
        return topk(20, 20)


@given(
    logits_BC=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.just(12)), elements=st.integers(-4, 4).map(np.float32)
    ),
    head=st.integers(1, 12),
)
def test_of_equal_logits_it_keeps_those_that_numpy_keeps(logits_BC: NDArray[np.float32], head: int) -> None:
    codec = topk(12, head)
    columns = to_arrays(device_codec(codec, "cpu").encode(torch.from_numpy(logits_BC)))
    assert columns["classes"].tolist() == codec.encode(logits_BC)["classes"].tolist()


def test_more_classes_than_16_bits_count_are_told_apart() -> None:
    logits_BC = np.zeros((1, 70_000), dtype=np.float32)
    logits_BC[0, [3, 69_999]] = 4
    codec = topk(70_000, 2)
    twin = device_codec(codec, "cpu")
    columns = twin.encode(torch.from_numpy(logits_BC))
    assert columns["classes"].dtype == torch.uint32
    assert columns["classes"].tolist() == [[3, 69_999]]
    decoded_BC = twin.decode(to_tensors(to_arrays(columns), "cpu"))
    np.testing.assert_allclose(
        torch.softmax(decoded_BC.double(), dim=1)[0, [3, 4]].numpy(),
        np.exp([4, 0]) / (2 * np.exp(4) + 69_998),
        rtol=1e-2,
    )


def test_a_class_that_the_teacher_has_not_does_not_end_the_process() -> None:
    twin = device_codec(topk(5, 2), "cpu")
    columns = twin.encode(torch.arange(10.0).reshape(2, 5))
    columns["classes"] = torch.tensor([[1, 60_000], [3, 4]]).to(torch.uint16)
    assert torch.isfinite(twin.decode(columns)).all()
