"""`lowrank` on a device: two products with the basis, small beside the teacher's own."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcask.pipeline.device_codecs.base import Tensors
from softcask.pipeline.device_codecs.tempered.profiled import Profile, ProfiledRows
from softcask.storage_schemas.codecs.lowrank.basis import Basis
from softcask.storage_schemas.codecs.lowrank.bits import low_width
from softcask.storage_schemas.codecs.lowrank.codec import APART, LOWEST, Lowrank
from softcask.storage_schemas.codecs.lowrank.head import EXPONENT_BITS, OCTAVE, ONE
from softcask.storage_schemas.errors import StoreError


class DeviceLowrank:
    """Coefficients and heads as numpy has them, up to roundings that the device makes the other way."""

    def __init__(self, codec: Lowrank, device: torch.device) -> None:
        """The twin of `codec`; it keeps the basis in float32.

        Raises:
            StoreError: The codec was built without its arrays, or is coded row by row.
        """
        if codec.settings.coder != "zstd" or codec.basis is None:
            raise StoreError(
                "codec lowrank runs on devices with its arrays and with coder 'zstd'; found coder "
                f"{codec.settings.coder!r} and {'no ' if codec.basis is None else ''}arrays. Encode and "
                "decode with the codec itself"
            )
        self.device = device
        self._settings, self._format = codec.settings, codec.head
        self._digits = codec.basis.digits
        self._keep(codec.basis)

    def encode(self, logits_BC: Tensor) -> dict[str, Tensor]:
        """`head` and `coefficients` `[B, byte]` of finite logits `[B, C]`; a few times their memory."""
        logits_BC = logits_BC.float()
        largest_B1 = logits_BC.argmax(dim=1, keepdim=True)
        shifted_BC = (logits_BC - logits_BC.gather(1, largest_B1)).clamp_(min=float(LOWEST))
        logits_BC = torch.log_softmax(shifted_BC, dim=1)
        codes_BR = self._codes(logits_BC)
        profile_BC = self._profile(codes_BR)
        classes_BK, top_B1 = self._choose(logits_BC, profile_BC, largest_B1)
        residuals_BK = _above_tail(logits_BC, classes_BK) - _above_tail(profile_BC, classes_BK)
        columns = {"head": self._pack_head(classes_BK, top_B1, residuals_BK)}
        if self._settings.rank:
            columns["coefficients"] = self._pack(codes_BR)
        return columns

    def decode(self, columns: Tensors, temperature: float = 1.0) -> Tensor:
        """Logits `[B, C]`, the same at any temperature."""
        classes_BK, top_B1, residuals_BK = self._unpack_head(columns["head"])
        logits_BC = self._profile(self._unpack(columns))
        logits_BC.scatter_add_(1, classes_BK, residuals_BK)
        top_class_B1 = classes_BK.gather(1, top_B1)
        top_logits_B1 = logits_BC.gather(1, top_class_B1)
        others_B1 = logits_BC.scatter(1, top_class_B1, -math.inf).amax(dim=1, keepdim=True)
        least_B1 = others_B1 + others_B1.abs().clamp(min=1) * float(APART)
        return logits_BC.sub_(torch.maximum(top_logits_B1, least_B1)).scatter_(1, top_class_B1, 0.0)

    def tempered(self, columns: Tensors, temperature: float, logits_BC: Tensor) -> ProfiledRows:
        """Soft targets at T, made from coefficients and heads a few classes at a time."""
        classes_BK, top_B1, residuals_BK = self._unpack_head(columns["head"])
        profile = Profile(
            mean_C=self._mean_C,
            basis_CR=self._basis_CR,
            coefficients_BR=self._coefficients(self._unpack(columns)),
            classes_BK=classes_BK,
            top_B1=top_B1,
            residuals_BK=residuals_BK,
            apart=float(APART),
        )
        return ProfiledRows.of(profile, temperature, logits_BC)

    def _keep(self, basis: Basis) -> None:
        self._mean_C, self._weights_C = self._tensor(basis.mean_C), self._tensor(basis.weights_C)
        self._basis_CR, self._ones_R = self._tensor(basis.basis_CR), self._tensor(basis.ones_R)
        self._limits_R = self._tensor(basis.limits_R)
        self._values, self._divisors, self._radices, self._bytes, self._weights = (
            self._tensor(np.array([getattr(digit, name) for digit in self._digits.digits], dtype=np.int64))
            for name in ("value", "divisor", "radix", "byte", "weight")
        )

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _codes(self, logits_BC: Tensor) -> Tensor:
        above_BC = logits_BC - self._mean_C
        above_BC -= (above_BC * self._weights_C).sum(dim=1, keepdim=True)
        codes_BR = ((above_BC * self._weights_C) @ self._basis_CR / self._settings.step).round_()
        return torch.minimum(torch.maximum(codes_BR, -self._limits_R), self._limits_R).long()

    def _coefficients(self, codes_BR: Tensor) -> Tensor:
        exact_BR = codes_BR.float() * self._settings.step
        return torch.where(codes_BR.abs() == 1, exact_BR.sign() * self._ones_R, exact_BR)

    def _profile(self, codes_BR: Tensor) -> Tensor:
        return torch.addmm(self._mean_C, self._coefficients(codes_BR), self._basis_CR.T)

    def _choose(self, logits_BC: Tensor, profile_BC: Tensor, largest_B1: Tensor) -> tuple[Tensor, Tensor]:
        scores_BC = torch.zeros_like(logits_BC)
        for temperature in self._settings.temperatures:
            wrong_BC = torch.softmax(logits_BC / temperature, dim=1)
            scores_BC += wrong_BC.sub_(torch.softmax(profile_BC / temperature, dim=1)).abs_()
        scores_BC.scatter_(1, largest_B1, math.inf)
        classes_BK = scores_BC.topk(self._settings.head_size, dim=1, sorted=False).indices.sort(dim=1).values
        return classes_BK, (classes_BK == largest_B1).int().argmax(dim=1, keepdim=True)

    def _pack(self, codes_BR: Tensor) -> Tensor:
        digits_BD = (codes_BR + self._limits_R)[:, self._values] // self._divisors % self._radices
        packed_BG = codes_BR.new_zeros(len(codes_BR), self._digits.bytes)
        return packed_BG.index_add_(1, self._bytes, digits_BD * self._weights).to(torch.uint8)

    def _unpack(self, columns: Tensors) -> Tensor:
        codes_BR = (-self._limits_R).repeat(len(columns["head"]), 1)
        if not self._settings.rank:
            return codes_BR
        places_BD = columns["coefficients"].long()[:, self._bytes] // self._weights % self._radices
        return codes_BR.index_add_(1, self._values, places_BD * self._divisors)

    def _pack_head(self, classes_BK: Tensor, top_B1: Tensor, residuals_BK: Tensor) -> Tensor:
        most = self._format.most
        largest_B1 = residuals_BK.abs().amax(dim=1, keepdim=True)
        exponents_B1 = (ONE + OCTAVE * torch.log2(largest_B1 / most)).ceil_().clamp_(0, 255).long()
        codes_BK = (residuals_BK / _scales(exponents_B1)).round_().clamp_(-most, most).long() + most
        fields = (
            self._set_bits(classes_BK),
            _to_bits(top_B1, self._format.widths[1]),
            _to_bits(exponents_B1, EXPONENT_BITS),
            _to_bits(codes_BK, self._format.code_bits),
        )
        bits_Bn = torch.cat(fields, dim=1)
        filled_Bn = torch.nn.functional.pad(bits_Bn, (0, -bits_Bn.shape[1] % 8))
        return _from_bits(filled_Bn, 8).to(torch.uint8)

    def _unpack_head(self, packed_Bn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bits_Bn = _to_bits(packed_Bn.long(), 8)[:, : sum(self._format.widths)]
        set_Bn, place_Bn, exponent_Bn, code_Bn = torch.split(bits_Bn, list(self._format.widths), dim=1)
        K = self._format.size
        top_B1 = _from_bits(place_Bn, place_Bn.shape[1])
        codes_BK = _from_bits(code_Bn, self._format.code_bits) - self._format.most
        residuals_BK = codes_BK.float() * _scales(_from_bits(exponent_Bn, EXPONENT_BITS))
        # Places beyond the end, which no encoder writes, would end the device's process.
        return self._set_classes(set_Bn), top_B1.clamp_(max=K - 1), residuals_BK

    def _set_bits(self, classes_BK: Tensor) -> Tensor:
        B, K = classes_BK.shape
        low = low_width(K, self._format.classes)
        places_BK = (classes_BK >> low) + torch.arange(K, device=self.device)
        unary_Bn = classes_BK.new_zeros(B, K + (self._format.classes >> low) + 1).scatter_(1, places_BK, 1)
        return torch.cat([_to_bits(classes_BK & ((1 << low) - 1), low), unary_Bn], dim=1)

    def _set_classes(self, set_Bn: Tensor) -> Tensor:
        K, C = self._format.size, self._format.classes
        low = low_width(K, C)
        # Ones sort before zeros and stay in order: their places, and the host need not ask how many.
        places_BK = set_Bn[:, K * low :].sort(dim=1, descending=True, stable=True).indices[:, :K]
        highs_BK = places_BK - torch.arange(K, device=self.device)
        lows_BK = _from_bits(set_Bn[:, : K * low], low) if low else 0
        return (highs_BK << low | lows_BK).clamp_(0, C - 1)


def _above_tail(logits_BC: Tensor, classes_BK: Tensor) -> Tensor:
    """The head's logits above the logsumexp of the classes outside it."""
    tail_B1 = logits_BC.scatter(1, classes_BK, -math.inf).logsumexp(dim=1, keepdim=True)
    return logits_BC.gather(1, classes_BK) - tail_B1


def _scales(exponents_B1: Tensor) -> Tensor:
    return torch.exp2((exponents_B1 - ONE).float() / OCTAVE)


def _to_bits(values_BK: Tensor, width: int) -> Tensor:
    shifts_W = torch.arange(width - 1, -1, -1, device=values_BK.device)
    return (values_BK[:, :, None] >> shifts_W & 1).flatten(1)


def _from_bits(bits_Bn: Tensor, width: int) -> Tensor:
    powers_W = 1 << torch.arange(width - 1, -1, -1, device=bits_Bn.device)
    fields_BKW = bits_Bn.reshape(len(bits_Bn), bits_Bn.shape[1] // width, width)
    return (fields_BKW * powers_W).sum(dim=2)
