"""Rows whose logits are all there: what the dense codecs give, for the few classes that those are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from softcask.pipeline.device_codecs.tempered.base import working_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseRows:
    """Soft targets held whole.

    Attributes:
        sums_B: See `TemperedRows`.
        p_BC: The soft targets.
    """

    sums_B: Tensor
    p_BC: Tensor

    @classmethod
    def of(cls, teacher_BC: Tensor, temperature: float, logits_BC: Tensor) -> Self:
        """Those of a teacher's logits `[B, C]`, met with a student's."""
        dtype = working_dtype(logits_BC)
        log_p_BC = (teacher_BC.to(dtype) / temperature).log_softmax(dim=1)
        p_BC = log_p_BC.exp()
        return cls(sums_B=(p_BC * (log_p_BC - logits_BC.to(dtype) / temperature)).sum(dim=1), p_BC=p_BC)

    def subtract_from(self, values_Bn: Tensor, first: int) -> None:
        """See `TemperedRows`."""
        values_Bn -= self.p_BC[:, first : first + values_Bn.shape[1]]
