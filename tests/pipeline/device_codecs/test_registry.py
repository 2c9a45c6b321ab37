from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from softcask.pipeline.device_codecs.base import to_arrays, to_tensors
from softcask.pipeline.device_codecs.registry import device_codec, kept_device_codec
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.errors import UnknownKind


class Other(Dense16):
    name: ClassVar[str] = "other"


def test_a_codec_without_a_twin_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UnknownKind, match=r"'other'.*dense16"):
        device_codec(Other(), "cpu")


def test_a_twin_knows_its_device() -> None:
    assert device_codec(Dense16(), "cpu").device == torch.device("cpu")


def test_a_twin_is_made_once_for_each_codec_and_the_last_few_are_kept() -> None:
    codecs = [Dense16() for _ in range(30)]
    assert kept_device_codec(codecs[0], "cpu") is kept_device_codec(codecs[0], torch.device("cpu"))
    twins = [kept_device_codec(codec, "cpu") for codec in codecs]
    assert len({id(twin) for twin in twins}) == 30
    assert kept_device_codec(codecs[-1], "cpu") is twins[-1]
    assert kept_device_codec(codecs[0], "cpu") is not twins[0]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "|u1", "|i1", "<u2", "<u4", "<i4"])
@pytest.mark.parametrize("writeable", [True, False])
def test_columns_go_to_tensors_and_back_unchanged(dtype: str, writeable: bool) -> None:
    values = np.arange(12).astype(dtype).reshape(3, 4)
    values.flags.writeable = writeable
    tensors = to_tensors({"values": values}, "cpu")
    assert tensors["values"].tolist() == values.tolist()
    back = to_arrays(tensors)["values"]
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()


def test_columns_that_may_be_written_are_not_copied() -> None:
    values = np.zeros((2, 3), dtype=np.float16)
    to_tensors({"values": values}, "cpu")["values"][1, 2] = 5
    assert values[1, 2] == 5
