"""`dense8` on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from softcask.pipeline.device_codecs.base import Tensors
from softcask.pipeline.device_codecs.dense16 import below_maximum
from softcask.pipeline.device_codecs.tempered.dense import DenseRows
from softcask.storage_schemas.codecs.dense8 import BLOCK, LEAST_HALF, STEPS, Dense8

_LEAST_TOP = -float(LEAST_HALF)
_LEAST_STEP = 2 * float(LEAST_HALF)


class DeviceDense8:
    """Eight bits a logit between the ends of blocks of 64 classes; bit for bit what numpy gives."""

    def __init__(self, codec: Dense8, device: torch.device) -> None:
        """The twin of `codec`; it keeps nothing."""
        self.device = device

    def encode(self, logits_BC: Tensor) -> dict[str, Tensor]:
        """`codes` `[B, C]`, `tops` and `steps` `[B, G]` and `row_max` `[B]` of finite logits `[B, C]`."""
        shifted_BC, row_max_B = below_maximum(logits_BC)
        C = shifted_BC.shape[1]
        blocks_BGK = _blocks(shifted_BC)
        tops_BG = _tops(blocks_BGK.amax(dim=2))
        steps_BG = _steps(tops_BG.float() - blocks_BGK.amin(dim=2))
        codes_BGK = ((tops_BG.float()[:, :, None] - blocks_BGK) / steps_BG.float()[:, :, None]).round_()
        codes_BGK = _keep_best(codes_BGK.to(torch.uint8), shifted_BC.argmax(dim=1))
        return {
            "codes": codes_BGK.flatten(1)[:, :C].contiguous(),
            "tops": tops_BG,
            "steps": steps_BG,
            "row_max": row_max_B,
        }

    def decode(self, columns: Tensors, temperature: float = 1.0) -> Tensor:
        """Logits `[B, C]`, the same at any temperature."""
        codes_BC = columns["codes"]
        below_BC = _spread(columns["steps"], codes_BC.shape[1]) * codes_BC
        return torch.sub(_spread(columns["tops"], codes_BC.shape[1]), below_BC, out=below_BC)

    def tempered(self, columns: Tensors, temperature: float, logits_BC: Tensor) -> DenseRows:
        """Soft targets at T, held whole: C is small where this codec is used."""
        return DenseRows.of(self.decode(columns, temperature), temperature, logits_BC)


def _spread(values_BG: Tensor, num_classes: int) -> Tensor:
    """Each block's value for each of its classes, `[B, C]` in float32."""
    return values_BG.float()[:, :, None].expand(-1, -1, BLOCK).flatten(1)[:, :num_classes]


def _blocks(shifted_BC: Tensor) -> Tensor:
    """Logits by block `[B, G, 64]`; the last class stands in for those that the last block lacks."""
    B, C = shifted_BC.shape
    if missing := -C % BLOCK:
        shifted_BC = torch.cat([shifted_BC, shifted_BC[:, -1:].expand(B, missing)], dim=1)
    return shifted_BC.reshape(B, -(-C // BLOCK), BLOCK)


def _tops(largest_BG: Tensor) -> Tensor:
    tops_BG = largest_BG.half()
    # The bits of the next number towards zero are one less, and of the next away from it one more.
    tops_BG = (tops_BG.view(torch.int16) - (tops_BG < largest_BG).to(torch.int16)).view(torch.float16)
    return torch.where(largest_BG < 0, tops_BG.clamp(max=_LEAST_TOP), tops_BG)


def _steps(ranges_BG: Tensor) -> Tensor:
    exact_BG = (ranges_BG / float(STEPS)).clamp(min=_LEAST_STEP)
    steps_BG = exact_BG.half()
    return (steps_BG.view(torch.int16) + (steps_BG < exact_BG).to(torch.int16)).view(torch.float16)


def _keep_best(codes_BGK: Tensor, best_B: Tensor) -> Tensor:
    """Put those a step down that rounding raised to the maximum and that stand before it in its block."""
    places_B1K = (best_B // BLOCK)[:, None, None].expand(-1, 1, BLOCK)
    before_BK = torch.arange(BLOCK, device=best_B.device) < (best_B % BLOCK)[:, None]
    block_B1K = codes_BGK.gather(1, places_B1K)
    raised_B1K = (block_B1K == 0) & before_BK[:, None]
    return codes_BGK.scatter(1, places_B1K, torch.where(raised_B1K, 1, block_B1K).to(torch.uint8))
