"""Rows that lie on a profile of low rank, with a head that stands above it: what `lowrank` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from softcask.pipeline.device_codecs.tempered.base import add_into, chunks, working_dtype

_NOWHERE = -1e30
"""Added to a logit, leaves it no probability at any temperature; unlike -inf, times 0 it is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Logits `mean + basis @ coefficients`, and in the head a residual more; up to a constant a row.

    Attributes:
        mean_C: Mean profile.
        basis_CR: Directions around it.
        coefficients_BR: How far each row goes along them.
        classes_BK: int64, the head's classes, each once.
        top_B1: Place in the head of the class that is the row's largest.
        residuals_BK: What the head lies above the profile.
        apart: Share of a logit, or of 1 nat, that the largest lies above all others at least.
    """

    mean_C: Tensor
    basis_CR: Tensor
    coefficients_BR: Tensor
    classes_BK: Tensor
    top_B1: Tensor
    residuals_BK: Tensor
    apart: float

    def largest(self) -> tuple[Tensor, Tensor]:
        """Class and logit of each row's largest `[B, 1]`, before it is known to be above the others."""
        class_B1 = self.classes_BK.gather(1, self.top_B1)
        along_B = (self.basis_CR[class_B1[:, 0]] * self.coefficients_BR).sum(dim=1)
        residual_B1 = self.residuals_BK.gather(1, self.top_B1)
        return class_B1, self.mean_C[class_B1] + along_B[:, None] + residual_B1

    def others(self, some: slice, dtype: torch.dtype) -> Tensor:
        """Logits `[B, n]` of some classes; a row's largest is nowhere among them."""
        mean_n, basis_nR = self.mean_C[some].to(dtype), self.basis_CR[some].to(dtype)
        logits_Bn = torch.addmm(mean_n, self.coefficients_BR.to(dtype), basis_nR.T)
        residuals_BK = self.residuals_BK.to(dtype).scatter(1, self.top_B1, _NOWHERE)
        add_into(logits_Bn, some.start, self.classes_BK, residuals_BK)
        return logits_Bn


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledRows:
    """Soft targets made from a profile whenever they are asked for, a few classes at a time.

    Attributes:
        sums_B: See `TemperedRows`.
        profile: The teacher's logits.
        norms_B1: `log sum_i exp(logit_i / T)` of them.
        top_class_B1: int64, the class of each row's largest.
        top_p_B1: Its p.
        temperature: T.
    """

    sums_B: Tensor
    profile: Profile
    norms_B1: Tensor
    top_class_B1: Tensor
    top_p_B1: Tensor
    temperature: float

    @classmethod
    def of(cls, profile: Profile, temperature: float, logits_BC: Tensor) -> Self:
        """Those of a teacher's logits, met with a student's: one product with the basis."""
        dtype = working_dtype(logits_BC)
        log_sums, means, most_B1 = [], [], torch.full_like(logits_BC[:, :1], _NOWHERE, dtype=dtype)
        for some in chunks(logits_BC):
            teacher_Bn = profile.others(some, dtype)
            chunk_most_B1 = teacher_Bn.amax(dim=1, keepdim=True)
            weights_Bn = torch.sub(teacher_Bn, chunk_most_B1).div_(temperature).exp_()
            weight_B1 = weights_Bn.sum(dim=1, keepdim=True)
            above_Bn = teacher_Bn.sub_(logits_BC[:, some])
            means.append(above_Bn.mul_(weights_Bn).sum(dim=1, keepdim=True) / weight_B1)
            log_sums.append(weight_B1.log() + chunk_most_B1 / temperature)
            most_B1 = torch.maximum(most_B1, chunk_most_B1)
        top_class_B1, top_B1 = profile.largest()
        top_B1 = torch.maximum(top_B1.to(dtype), most_B1 + most_B1.abs().clamp(min=1) * profile.apart)
        means.append(top_B1 - logits_BC.gather(1, top_class_B1))
        log_sums.append(top_B1 / temperature)
        log_sums_BP, means_BP = torch.cat(log_sums, dim=1), torch.cat(means, dim=1)
        norms_B1 = log_sums_BP.logsumexp(dim=1, keepdim=True)
        shares_BP = (log_sums_BP - norms_B1).exp()
        return cls(
            sums_B=(shares_BP * means_BP).sum(dim=1) / temperature - norms_B1[:, 0],
            profile=profile,
            norms_B1=norms_B1,
            top_class_B1=top_class_B1,
            top_p_B1=shares_BP[:, -1:],
            temperature=temperature,
        )

    def subtract_from(self, values_Bn: Tensor, first: int) -> None:
        """See `TemperedRows`: another product with the basis."""
        some = slice(first, first + values_Bn.shape[1])
        log_p_Bn = self.profile.others(some, values_Bn.dtype).div_(self.temperature).sub_(self.norms_B1)
        values_Bn -= log_p_Bn.exp_()
        add_into(values_Bn, first, self.top_class_B1, -self.top_p_B1)
