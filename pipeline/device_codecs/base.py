"""What a codec is on a device: tensors in, columns of tensors out and back, without a way through the host.

The numpy codec on the ground floor says what the columns mean. Its twin does the same arithmetic where the
logits are: a teacher's device sends home a few bytes a row, and a student's device takes in as few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcask.pipeline.device_codecs.tempered.base import TemperedRows

Tensors = Mapping[str, Tensor]
"""Columns of B rows by name, each `[B, *row_shape]`, of the dtypes that `Codec.columns` names."""


class DeviceCodec(Protocol):
    """A codec's twin on one device. It is made from the codec itself, so it has its parameters and arrays.

    Attributes:
        device: Where its own arrays lie, and where columns are expected.
    """

    device: torch.device

    def encode(self, logits_BC: Tensor) -> dict[str, Tensor]:
        """Columns of finite logits `[B, C]` of any floating dtype, on this device; see `Codec.encode`."""

    def decode(self, columns: Tensors, temperature: float = 1.0) -> Tensor:
        """Logits `[B, C]` in float32, each row's largest 0, whose softmax at `temperature` is the teacher's.

        Args:
            columns: Of B rows, on this device, as an encoder wrote them. What comes from a store passed its
                checksums; values that no encoder writes give numbers that mean nothing, and no error: to look
                at them would make the host wait for the device.
            temperature: T that soft targets are wanted at.
        """

    def tempered(self, columns: Tensors, temperature: float, logits_BC: Tensor) -> TemperedRows:
        """Soft targets at T, met with a student's logits `[B, C]` on this device; see `TemperedRows`.

        Args:
            columns: As `decode` takes them.
            temperature: T.
            logits_BC: The student's, of any floating dtype, over the classes that are stored.
        """


def to_tensors(columns: Mapping[str, NDArray[Any] | Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Columns on `device`; numpy's share their memory with a CPU's where it may be written."""
    return {name: _tensor(values).to(device, non_blocking=True) for name, values in columns.items()}


def to_arrays(columns: Tensors) -> dict[str, NDArray[Any]]:
    """Columns as a store takes them."""
    return {name: values.detach().cpu().numpy() for name, values in columns.items()}


def _tensor(values: NDArray[Any] | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    native = values.astype(values.dtype.newbyteorder("="), copy=not values.flags.writeable)
    return torch.from_numpy(np.ascontiguousarray(native))
