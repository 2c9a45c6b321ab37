"""Twins by the name of their codec; built-in ones only, as codecs are."""

from __future__ import annotations

from collections import OrderedDict
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

_MOST_KEPT = 8
_KEPT: OrderedDict[tuple[int, str], tuple[Codec, DeviceCodec]] = OrderedDict()


def device_codec(codec: Codec, device: torch.device | str) -> DeviceCodec:
    """The twin of `codec` on `device`.

    Raises:
        UnknownKind: It has none.
    """
    if codec.name not in DEVICE_CODECS:
        known = ", ".join(sorted(DEVICE_CODECS))
        raise UnknownKind(f"codec {codec.name!r} does not run on devices; those that do: {known}")
    return DEVICE_CODECS[codec.name](codec, torch.device(device))


def kept_device_codec(codec: Codec, device: torch.device | str) -> DeviceCodec:
    """The twin of this very `codec` on `device`, made once: a basis of many MB is not sent with every batch.

    The last few are kept, with their codecs: by identity, for a codec of large arrays is not to be hashed.

    Raises:
        UnknownKind: It has none.
    """
    key = id(codec), str(device)
    found = _KEPT.pop(key, None) or (codec, device_codec(codec, device))
    _KEPT[key] = found
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return found[1]
