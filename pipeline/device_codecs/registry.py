"""Twins by the name of their codec; built-in ones only, as codecs are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from softcask.pipeline.device_codecs.base import DeviceCodec
from softcask.pipeline.device_codecs.dense8 import DeviceDense8
from softcask.pipeline.device_codecs.dense16 import DeviceDense16
from softcask.pipeline.device_codecs.lowrank import DeviceLowrank
from softcask.pipeline.device_codecs.topk import DeviceTopK
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.topk import TopK
from softcask.storage_schemas.errors import UnknownKind

DEVICE_CODECS: dict[str, Callable[[Any, torch.device], DeviceCodec]] = {
    Dense16.name: DeviceDense16,
    Dense8.name: DeviceDense8,
    TopK.name: DeviceTopK,
    Lowrank.name: DeviceLowrank,
}
"""What makes a twin from its codec and a device."""


def device_codec(codec: Codec, device: torch.device | str) -> DeviceCodec:
    """The twin of `codec` on `device`.

    Raises:
        UnknownKind: It has none.
    """
    if codec.name not in DEVICE_CODECS:
        known = ", ".join(sorted(DEVICE_CODECS))
        raise UnknownKind(f"codec {codec.name!r} does not run on devices; those that do: {known}")
    return DEVICE_CODECS[codec.name](codec, torch.device(device))
