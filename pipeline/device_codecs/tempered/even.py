"""Rows of a few classes one by one, and all others alike: what `topk` keeps, and what a hard label is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from softcask.pipeline.device_codecs.tempered.base import add_into, chunks, working_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenRows:
    """A head of K classes, and a tail that is even: sums over all classes are closed forms.

    Attributes:
        sums_B: See `TemperedRows`.
        classes_BK: int64, the head's classes, each once.
        above_BK: What the head's p lie above the tail's.
        tail_B1: p of each class of the tail.
    """

    sums_B: Tensor
    classes_BK: Tensor
    above_BK: Tensor
    tail_B1: Tensor

    @classmethod
    def of(
        cls, classes_BK: Tensor, head_BK: Tensor, even_B1: Tensor, temperature: float, logits_BC: Tensor
    ) -> Self:
        """Those of a teacher's logits, met with a student's.

        Args:
            classes_BK: int64, the head's classes, each once.
            head_BK: Their logits.
            even_B1: The logit of every other class; finite.
            temperature: T.
            logits_BC: The student's.
        """
        dtype = working_dtype(logits_BC)
        others = logits_BC.shape[1] - classes_BK.shape[1]
        head_BK, even_B1 = head_BK.to(dtype) / temperature, even_B1.to(dtype) / temperature
        log_others = math.log(others) if others else -math.inf
        norms_B1 = torch.logaddexp(head_BK.logsumexp(dim=1, keepdim=True), even_B1 + log_others)
        log_head_BK, log_tail_B1 = head_BK - norms_B1, even_B1 - norms_B1
        head_p_BK, tail_p_B1 = log_head_BK.exp(), log_tail_B1.exp()
        students_BK = logits_BC.gather(1, classes_BK).to(dtype) / temperature
        parts = [logits_BC[:, some].sum(dim=1, dtype=dtype) for some in chunks(logits_BC)]
        sum_B = torch.stack(parts).sum(dim=0) / temperature
        sums_B = (head_p_BK * (log_head_BK - students_BK)).sum(dim=1)
        tail_B = others * log_tail_B1[:, 0] - (sum_B - students_BK.sum(dim=1))
        return cls(
            sums_B=sums_B + tail_p_B1[:, 0] * tail_B,
            classes_BK=classes_BK,
            above_BK=head_p_BK - tail_p_B1,
            tail_B1=tail_p_B1,
        )

    def subtract_from(self, values_Bn: Tensor, first: int) -> None:
        """See `TemperedRows`."""
        values_Bn -= self.tail_B1
        add_into(values_Bn, first, self.classes_BK, -self.above_BK)
