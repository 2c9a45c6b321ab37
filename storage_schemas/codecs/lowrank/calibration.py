"""Fit a `lowrank` codec to a teacher: as good as a budget of bytes allows, or as small as one of KL does.

Bytes are those of a Parquet part that is written for the purpose; KL is measured on rows apart from those the
basis was fitted to. Where the basis does not pay, the best of rank 0 remains: a head over the mean profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.fidelity import TEMPERATURES, divergence
from softcask.storage_schemas.codecs.lowrank import ans
from softcask.storage_schemas.codecs.lowrank.basis import Basis
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank, bytes_column
from softcask.storage_schemas.codecs.lowrank.digits import MOST, Digits
from softcask.storage_schemas.codecs.lowrank.head import HeadFormat
from softcask.storage_schemas.codecs.lowrank.settings import Settings
from softcask.storage_schemas.codecs.lowrank.spectrum import Spectrum
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.parquet_layout import PartLayout

Coder = Literal["zstd", "ans"]

_HEAD_SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_MOST_ALONE = 4096
_HEAD_BITS = (5, 7, 9, 11)
_ALONE_BITS = 11
"""So many only pay where nothing else is kept of a row."""
_STEPS = 2.0 ** np.arange(1, -11, -0.5)
"""In nats, from the coarsest."""
_CUT = 2e-3
"""The share of a coefficient's codes that may lie beyond its limit."""
_LEAST_DEVIATION = 0.25
"""Of a step: directions that rows go less far along are left out."""
_PART_ROWS = 16_384
_SEARCH_ROWS = 64
_BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A codec and how it does on held-out rows; the codec's own settings say the same.

    Attributes:
        codec: Ready to use.
        row_bytes: Bytes a row on disk, without what is kept once and without a file's footer.
        kl: Mean KL(teacher || decoded) by temperature, in nats.
    """

    codec: Lowrank
    row_bytes: float
    kl: dict[float, float]


def fit(
    calibration_RC: NDArray[np.floating],
    held_out_RC: NDArray[np.floating],
    *,
    max_bytes: float | None = None,
    max_kl: float | None = None,
    temperatures: tuple[float, ...] = TEMPERATURES,
    coder: Coder = "zstd",
    output_layer: NDArray[np.floating] | None = None,
) -> Fitted:
    """The best codec within a budget; see `Calibration`, which fits several budgets at the price of one.

    Raises:
        ConfigError: Neither or both budgets are given, or nothing fits.
    """
    calibration = Calibration.of(
        calibration_RC, held_out_RC, temperatures=temperatures, coder=coder, output_layer=output_layer
    )
    if max_bytes is not None and max_kl is None:
        return calibration.within_bytes(max_bytes)
    if max_kl is not None and max_bytes is None:
        return calibration.within_kl(max_kl)
    raise ConfigError(f"codec lowrank is fitted to max_bytes or to max_kl; found {max_bytes} and {max_kl}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """All that does not depend on the budget.

    Attributes:
        spectrum: Of the calibration rows.
        calibration_Rm: Their coefficients.
        held_out_RC: Rows to judge by.
        held_out_Rm: Their coefficients.
        temperatures: That codecs are judged at, rising.
        coder: Of the coefficients.
        white_box: Whether the directions are those of the teacher's output layer.
    """

    spectrum: Spectrum
    calibration_Rm: NDArray[np.float32]
    held_out_RC: NDArray[np.floating]
    held_out_Rm: NDArray[np.float32]
    temperatures: tuple[float, ...]
    coder: Coder
    white_box: bool
    _sizes: dict[float, float] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        calibration_RC: NDArray[np.floating],
        held_out_RC: NDArray[np.floating],
        *,
        temperatures: tuple[float, ...] = TEMPERATURES,
        coder: Coder = "zstd",
        output_layer: NDArray[np.floating] | None = None,
    ) -> Self:
        """Find a teacher's directions.

        Args:
            calibration_RC: Finite logits, some 10 rows a direction or as many as there are; of any
                float dtype, read a few rows at a time.
            held_out_RC: Finite logits of other rows.
            temperatures: That soft targets are wanted at.
            coder: "zstd" or "ans".
            output_layer: Weights `[C, d]` of the teacher's last layer, where it has them; without its bias.
        """
        temperatures = tuple(sorted(set(temperatures)))
        spectrum = Spectrum.of(calibration_RC, temperatures, output_layer)
        return cls(
            spectrum=spectrum,
            calibration_Rm=spectrum.coefficients(calibration_RC),
            held_out_RC=held_out_RC,
            held_out_Rm=spectrum.coefficients(held_out_RC),
            temperatures=temperatures,
            coder=coder,
            white_box=output_layer is not None,
        )

    def within_kl(self, most: float) -> Fitted:
        """The smallest of some sizes, half an octave apart, whose mean KL is nowhere larger.

        Raises:
            ConfigError: None is.
        """
        for max_bytes in 2.0 ** np.arange(4, 12.5, 0.5):
            try:
                fitted = self.within_bytes(float(max_bytes))
            except ConfigError:
                continue  # not even a head has room
            if max(fitted.kl.values()) <= most:
                return fitted
        raise ConfigError(
            f"codec lowrank does not keep mean KL within {most:g} at T = {self._asked} in 4096 B a row; "
            "raise max_kl, or choose dense8 or dense16"
        )

    def within_bytes(self, most: float) -> Fitted:
        """What loses least in so many bytes a row: the least mean of log KL over the temperatures.

        Raises:
            ConfigError: Not even a head of one class has room.
        """
        best, least = None, np.inf
        for head_bits in _HEAD_BITS:
            before = np.inf
            for candidate in self._candidates(most, head_bits):
                codec = self._codec(*candidate)
                if (loss := self._search_loss(codec)) < least:
                    best, least = codec, loss
                if not codec.settings.rank:
                    continue
                if loss > before:
                    break  # the head grows at the expense of what is worth more
                before = loss
        if best is None:
            raise ConfigError(f"codec lowrank has no room for a head in {most:g} B a row; raise max_bytes")
        return self._fitted(best)

    @property
    def _asked(self) -> str:
        return ", ".join(f"{temperature:g}" for temperature in self.temperatures)

    def _search_loss(self, codec: Lowrank) -> float:
        """Mean over temperatures of the log of the mean KL, on some of the held-out rows."""
        search_RC = self.held_out_RC[:: max(1, len(self.held_out_RC) // _SEARCH_ROWS)]
        kl = self._judge(codec, search_RC)
        return float(np.mean([np.log(max(loss, 1e-12)) for loss in kl.values()]))

    def _candidates(self, most: float, bits: int) -> Iterator[tuple[int, int, float | None]]:
        """(head size, bits, step) that fill the budget: the largest head alone, then all with a basis."""
        classes = len(self.spectrum.mean_C)
        left = {
            size: most - HeadFormat(classes=classes, size=size, code_bits=bits).bytes
            for size in range(1, min(classes, _MOST_ALONE + 1))
        }
        fitting = [size for size in left if left[size] >= 0]
        if fitting:
            yield fitting[-1], bits, None
        for size in fitting if bits < _ALONE_BITS else ():
            if size in _HEAD_SIZES and (step := self._step_within(left[size])) is not None:
                yield size, bits, step

    def _step_within(self, most: float) -> float | None:
        """The finest step whose coefficients take at most so many bytes; None where none does."""
        coarse = fine = float(_STEPS[0])
        for step in map(float, _STEPS):
            if not self._fits(step, most):
                break
            coarse, fine = step, step / np.sqrt(2)
        else:
            return coarse
        if not self._fits(coarse, most) or not self._rank(coarse):
            return None
        for _ in range(4):
            middle = float(np.sqrt(coarse * fine))
            coarse, fine = (middle, fine) if self._fits(middle, most) else (coarse, middle)
        return coarse

    def _fits(self, step: float, most: float) -> bool:
        """Whether coefficients take at most so many bytes, and no code would have to be cut to the largest.

        Codes that are cut cost few bytes and lose what a coarser step keeps.
        """
        return step >= self._finest and self._size(step) <= most

    @cached_property
    def _finest(self) -> float:
        sizes_m = np.quantile(np.abs(self.calibration_Rm), 1 - _CUT, axis=0, method="higher")
        return float(sizes_m.max(initial=0)) / MOST

    def _size(self, step: float) -> float:
        if step not in self._sizes:
            self._sizes[step] = self._coefficient_bytes(self._rank(step), step)
        return self._sizes[step]

    def _rank(self, step: float) -> int:
        return int((self.spectrum.deviations_m >= _LEAST_DEVIATION * step).sum())

    def _limits(self, rank: int, step: float) -> NDArray[np.int64]:
        sizes_Rm = np.abs(np.rint(self.calibration_Rm[:, :rank] / step))
        limits_R = np.quantile(sizes_Rm, 1 - _CUT, axis=0, method="higher")
        whole_R: NDArray[np.int64] = np.clip(limits_R, 1, MOST).astype(np.int64)
        return whole_R

    def _coefficient_bytes(self, rank: int, step: float) -> float:
        """Bytes a row of held-out coefficients.

        Held-out rows are too few to compress on their own: the calibration rows are, and the difference of
        the two in cross-entropy is added.
        """
        if not rank:
            return 0.0
        limits_R = self._limits(rank, step)
        known_RR, new_RR = (
            np.clip(np.rint(values_Rm[:, :rank] / step), -limits_R, limits_R).astype(np.int64)
            for values_Rm in (self.calibration_Rm, self.held_out_Rm)
        )
        if self.coder == "ans":
            deviations_R = self.spectrum.deviations_m[:rank].astype(np.float64) / step
            return float(
                np.mean([len(text) + 1 for text in ans.encode(new_RR, limits_R.max(), deviations_R)])
            )
        digits = Digits.within(limits_R)
        known_RG, new_RG = digits.pack(known_RR[:_PART_ROWS]), digits.pack(new_RR)
        layout = PartLayout(columns=(bytes_column("coefficients", digits.bytes),))
        part = layout.encode_part(np.arange(len(known_RG)), {"coefficients": known_RG})
        return len(part) / len(known_RG) + max(0.0, _surprise(known_RG, new_RG))

    def _codec(self, size: int, bits: int, step: float | None) -> Lowrank:
        rank = 0 if step is None else self._rank(step)
        step = step or 1.0
        limits_R = self._limits(rank, step)
        basis = Basis(
            mean_C=self.spectrum.mean_C,
            basis_CR=self.spectrum.basis_Cm[:, :rank].astype("<f2").astype(np.float32),
            deviations_R=self.spectrum.deviations_m[:rank],
            ones_R=_ones(self.calibration_Rm[:, :rank], step),
            limits_R=limits_R,
            weights_C=self.spectrum.weights_C,
        )
        settings = Settings(
            num_classes=len(self.spectrum.mean_C),
            head_size=size,
            head_bits=bits,
            rank=rank,
            step=step,
            coder=self.coder,
            coefficient_bytes=basis.digits.bytes if self.coder == "zstd" else 0,
            temperatures=self.temperatures,
        )
        return Lowrank(settings=settings, basis=basis)

    def _judge(self, codec: Lowrank, logits_RC: NDArray[np.floating]) -> dict[float, float]:
        """Mean KL by temperature."""
        sums = dict.fromkeys(self.temperatures, 0.0)
        for first in range(0, len(logits_RC), _BLOCK_ROWS):
            block_BC = logits_RC[first : first + _BLOCK_ROWS].astype(np.float32)
            decoded_BC = codec.decode(codec.encode(block_BC)).shifted_BC
            for temperature in sums:
                sums[temperature] += float(divergence(block_BC, decoded_BC, temperature).sum())
        return {temperature: total / len(logits_RC) for temperature, total in sums.items()}

    def _fitted(self, codec: Lowrank) -> Fitted:
        kl = self._judge(codec, self.held_out_RC)
        settings = codec.settings
        row_bytes = codec.head.bytes + self._coefficient_bytes(settings.rank, settings.step)
        facts = {
            "rows": len(self.calibration_Rm),
            "held_out_rows": len(self.held_out_RC),
            "white_box": self.white_box,
            "row_bytes": round(row_bytes, 2),
            "kl": {f"{temperature:g}": float(f"{loss:.4g}") for temperature, loss in kl.items()},
        }
        settings = settings.model_copy(update={"fit": facts})
        return Fitted(codec=Lowrank(settings=settings, basis=codec.basis), row_bytes=row_bytes, kl=kl)


def _ones(coefficients_RR: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """The mean distance from 0 of the coefficients whose code is 1 or -1."""
    sizes_RR = np.abs(coefficients_RR)
    ones_RR = np.rint(sizes_RR / step) == 1
    counts_R = ones_RR.sum(axis=0)
    means_R = np.where(ones_RR, sizes_RR, 0).sum(axis=0) / np.maximum(counts_R, 1)
    result: NDArray[np.float32] = np.where(counts_R > 0, means_R, step).astype(np.float32)
    return result


def _surprise(known_RG: NDArray[np.uint8], new_RG: NDArray[np.uint8]) -> float:
    """Bytes a row that new rows take more than known ones under the known ones' frequencies."""
    total = 0.0
    for known_R, new_R in zip(known_RG.T, new_RG.T, strict=True):
        counts = np.bincount(known_R, minlength=256) + 1 / 256
        costs = -np.log2(counts / counts.sum())
        total += float(costs[new_R].mean() - costs[known_R].mean()) / 8
    return total
