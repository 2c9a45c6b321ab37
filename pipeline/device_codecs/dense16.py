"""`dense16` on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from softcask.pipeline.device_codecs.base import Tensors
from softcask.pipeline.device_codecs.tempered.dense import DenseRows
from softcask.storage_schemas.codecs.dense16 import Dense16

_LEAST = torch.finfo(torch.float16).min


def below_maximum(logits_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, C]` in float32 less their row's maximum, cut at -65504; and the maxima `[B]`."""
    logits_BC = logits_BC.float()
    row_max_B = logits_BC.amax(dim=1) + 0.0
    # Added, not subtracted: so no zero is a negative one, whichever a maximum was found to be.
    return (logits_BC + (0.0 - row_max_B)[:, None]).clamp_(min=_LEAST), row_max_B


class DeviceDense16:
    """fp16 of `z - max(z)`, and `max(z)` in float32; bit for bit what numpy gives."""

    def __init__(self, codec: Dense16, device: torch.device) -> None:
        """The twin of `codec`; it keeps nothing."""
        self.device = device

    def encode(self, logits_BC: Tensor) -> dict[str, Tensor]:
        """`logits` `[B, C]` and `row_max` `[B]` of finite logits `[B, C]`."""
        shifted_BC, row_max_B = below_maximum(logits_BC)
        return {"logits": shifted_BC.half(), "row_max": row_max_B}

    def decode(self, columns: Tensors, temperature: float = 1.0) -> Tensor:
        """Logits `[B, C]`, the same at any temperature."""
        return columns["logits"].float()

    def tempered(self, columns: Tensors, temperature: float, logits_BC: Tensor) -> DenseRows:
        """Soft targets at T, held whole: C is small where this codec is used."""
        return DenseRows.of(self.decode(columns, temperature), temperature, logits_BC)
