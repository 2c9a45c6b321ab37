"""`topk` on a device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softcask.pipeline.device_codecs.base import Tensors
from softcask.pipeline.device_codecs.dense16 import below_maximum
from softcask.pipeline.device_codecs.tempered.even import EvenRows
from softcask.storage_schemas.codecs.topk import LEAST, TopK, interpolation

_INDEX = {"uint16": torch.uint16, "uint32": torch.uint32}


class DeviceTopK:
    """The largest logits and the tail's log odds: the head as numpy has it, odds up to float32's rounding."""

    def __init__(self, codec: TopK, device: torch.device) -> None:
        """The twin of `codec`; it keeps its settings."""
        self.device = device
        self._settings = codec.settings
        self._index = _INDEX[codec.columns(codec.settings.num_classes)[0].dtype.name]

    def encode(self, logits_BC: Tensor) -> dict[str, Tensor]:
        """`classes` and `logits` `[B, K]` and `tail` `[B, G]` of finite logits `[B, C]`.

        Takes about six times the memory of the logits on the way.
        """
        shifted_BC, _ = below_maximum(logits_BC)
        chosen_BC = _largest(shifted_BC, self._settings.head_size)
        classes_BK = _places(chosen_BC, self._settings.head_size)
        head_BK = shifted_BC.gather(1, classes_BK)
        odds_BG = self._tail_odds(shifted_BC.masked_fill_(chosen_BC, -math.inf), head_BK)
        return {"classes": classes_BK.to(self._index), "logits": head_BK.half(), "tail": odds_BG.half()}

    def decode(self, columns: Tensors, temperature: float = 1.0) -> Tensor:
        """Logits `[B, C]` whose softmax at `temperature` has the head's logits and the tail's mass."""
        classes_BK, head_BK, even_B1 = self._parts(columns, temperature)
        return even_B1.repeat(1, self._settings.num_classes).scatter_(1, classes_BK, head_BK)

    def tempered(self, columns: Tensors, temperature: float, logits_BC: Tensor) -> EvenRows:
        """Soft targets at T as head and even tail; nothing is made of the tail's classes one by one."""
        return EvenRows.of(*self._parts(columns, temperature), temperature, logits_BC)

    def _parts(self, columns: Tensors, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """The head's classes and logits `[B, K]`, and the logit of all others `[B, 1]`."""
        head_BK = columns["logits"].float()
        even_B = self._even_logit(head_BK, columns["tail"].float(), temperature)
        # A class that the teacher has not would end the device's process.
        classes_BK = columns["classes"].to(torch.int64).clamp_(max=self._settings.num_classes - 1)
        return classes_BK, head_BK, even_B[:, None]

    def _tail_odds(self, tail_BC: Tensor, head_BK: Tensor) -> Tensor:
        grid = self._settings.temperatures
        if self._settings.head_size == self._settings.num_classes:
            return head_BK.new_full((len(head_BK), len(grid)), float(LEAST))
        return (_log_sums(tail_BC, grid) - _log_sums(head_BK, grid)).clamp_(min=float(LEAST))

    def _even_logit(self, head_BK: Tensor, odds_BG: Tensor, temperature: float) -> Tensor:
        log_classes = math.log(max(1, self._settings.num_classes - self._settings.head_size))
        even_B = head_BK.new_zeros(len(head_BK))
        for place, weight in interpolation(self._settings.temperatures, temperature):
            node = self._settings.temperatures[place]
            log_mass_B = odds_BG[:, place] + _log_sums(head_BK, (node,))[:, 0]
            even_B += weight * node * (log_mass_B - log_classes)
        return even_B.clamp_(max=0)


def _largest(shifted_BC: Tensor, count: int) -> Tensor:
    """Whether a class is among the `count` largest `[B, C]`; of equal ones the lower are."""
    least_B1 = shifted_BC.topk(count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above_BC, ties_BC = shifted_BC > least_B1, shifted_BC == least_B1
    room_B1 = count - above_BC.sum(dim=1, keepdim=True)
    return above_BC | (ties_BC & (ties_BC.cumsum(dim=1, dtype=torch.int32) <= room_B1))


def _places(chosen_BC: Tensor, count: int) -> Tensor:
    """The classes that are chosen, `count` a row, rising `[B, K]`; found without the host's help."""
    B, C = chosen_BC.shape
    rank_BC = chosen_BC.cumsum(dim=1) - 1
    rank_BC.masked_fill_(~chosen_BC, count)  # all others share one place beyond the head
    classes_BC = torch.arange(C, device=chosen_BC.device).expand(B, C)
    places_BK = torch.zeros(B, count + 1, dtype=torch.int64, device=chosen_BC.device)
    return places_BK.scatter_(1, rank_BC, classes_BC)[:, :count]


def _log_sums(logits_BN: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    sums = [torch.logsumexp(logits_BN / temperature, dim=1) for temperature in temperatures]
    return torch.stack(sums, dim=1)
