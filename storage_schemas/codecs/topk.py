"""`topk`: the largest logits one by one, and of all others how much probability they have together.

What others keep, with the tail's mass exact at several temperatures rather than at one or none. Decoding
spreads that mass evenly, and there its error lies: at T >= 2 most of a language model's mass is in the tail,
and its shape counts. `lowrank` keeps the shape; this is for what others have kept, and the fallback.

The tail is kept as log odds against the head, which half precision holds best where neither is negligible. At
temperatures between those of the grid, the even logit of the tail's classes, T (log mass - log classes), is
taken to be linear in log T: the masses are then off by less than 1e-3 nats as a rule, a hundredth of what the
even spread costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from softcask.storage_schemas.codecs.base import Arrays, Column, Columns, Container, Decoded
from softcask.storage_schemas.codecs.fidelity import TEMPERATURES
from softcask.storage_schemas.codecs.half import below_maximum, row_blocks
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec

LEAST = np.float32(np.finfo(np.float16).min)
Temperature = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=True)]


class Settings(BaseModel):
    """Configuration of a `topk` codec.

    Attributes:
        num_classes: C.
        head_size: K, classes a row that are kept one by one; at most C.
        temperatures: Those at which the tail's mass is exact, rising; the first and the last bound the claim.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_classes: Annotated[int, Field(ge=2, le=1 << 20, strict=True)]
    head_size: Annotated[int, Field(ge=1, le=1 << 16, strict=True)] = 64
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1, max_length=64)] = TEMPERATURES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head_size > self.num_classes:
            raise ValueError(f"head_size {self.head_size} is more than the {self.num_classes} classes")
        if any(
            after <= before for before, after in zip(self.temperatures, self.temperatures[1:], strict=False)
        ):
            raise ValueError(f"temperatures {self.temperatures} do not rise")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """K classes and their logits below the maximum, and G log odds of the tail: about 4 K + 2 G bytes a row.

    Attributes:
        settings: As the store has them.
    """

    name: ClassVar[str] = "topk"
    container: ClassVar[Container] = "zarr"
    keeps_logits: ClassVar[bool] = False
    keeps_row_max: ClassVar[bool] = False

    settings: Settings

    @property
    def temperatures(self) -> tuple[float, float]:
        """The range of the grid."""
        return self.settings.temperatures[0], self.settings.temperatures[-1]

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        """The codec that `spec` describes.

        Raises:
            StoreError: The configuration does not fit, or it has arrays or another container than Zarr.
        """
        if spec.arrays or spec.container != cls.container:
            raise StoreError(f"codec topk lies in Zarr and keeps no arrays; the store says {spec!r}")
        try:
            return cls(settings=Settings.model_validate(spec.configuration))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise StoreError(f"the store's configuration of codec topk does not fit: {problems}") from error

    def to_spec(self) -> CodecSpec:
        """Name, settings and container."""
        configuration = self.settings.model_dump(mode="json")
        return CodecSpec(name=self.name, configuration=configuration, container=self.container)

    def arrays(self) -> Arrays:
        """Nothing is kept once."""
        return {}

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """`classes` and `logits` `[row, head]`, and `tail` `[row, temperature]`.

        Raises:
            StoreError: The codec was made for another number of classes.
        """
        if num_classes != self.settings.num_classes:
            raise StoreError(
                f"codec topk was made for {self.settings.num_classes} classes and is used for {num_classes}"
            )
        head, grid = (self.settings.head_size,), (len(self.settings.temperatures),)
        index, half = np.dtype("<u2" if num_classes <= 1 << 16 else "<u4"), np.dtype("<f2")
        return (
            Column(name="classes", dtype=index, row_shape=head, dimension_names=("row", "head")),
            Column(name="logits", dtype=half, row_shape=head, dimension_names=("row", "head")),
            Column(name="tail", dtype=half, row_shape=grid, dimension_names=("row", "temperature")),
        )

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`; the head's classes rise; of equals the lower."""
        B, C = logits_BC.shape
        columns = {column.name: np.empty((B, *column.row_shape), column.dtype) for column in self.columns(C)}
        for rows in row_blocks(B, C):
            shifted_BC, _ = below_maximum(logits_BC[rows])
            classes_BK = _largest(shifted_BC, self.settings.head_size)
            head_BK = np.take_along_axis(shifted_BC, classes_BK, axis=1)
            columns["classes"][rows], columns["logits"][rows] = classes_BK, head_BK
            columns["tail"][rows] = self._tail_odds(shifted_BC, classes_BK, head_BK)
        return columns

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits whose softmax at `temperature` has the head's logits and the tail's mass, spread evenly.

        Raises:
            CorruptObject: Classes that do not rise or are too large, or values that are not finite.
        """
        classes_BK, logits_BK, odds_BG = (columns[name] for name in ("classes", "logits", "tail"))
        head_BK = logits_BK.astype(np.float32)
        self._check(classes_BK, head_BK, odds_BG)
        shifted_BC = np.empty((len(head_BK), self.settings.num_classes), dtype=np.float32)
        shifted_BC[:] = self._even_logit(head_BK, odds_BG.astype(np.float32), temperature)[:, None]
        np.put_along_axis(shifted_BC, classes_BK.astype(np.int64), head_BK, axis=1)
        return Decoded(shifted_BC=shifted_BC, row_max_B=np.zeros(len(head_BK), dtype=np.float32))

    def _tail_odds(
        self, shifted_BC: NDArray[np.float32], classes_BK: NDArray[np.int64], head_BK: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """log(mass of the tail / mass of the head) at each temperature of the grid `[B, G]`."""
        if self.settings.head_size == self.settings.num_classes:
            return np.full((len(head_BK), len(self.settings.temperatures)), LEAST)
        np.put_along_axis(shifted_BC, classes_BK, -np.inf, axis=1)
        grid = self.settings.temperatures
        odds_BG = _log_sums(shifted_BC, grid) - _log_sums(head_BK, grid)
        np.maximum(odds_BG, LEAST, out=odds_BG)
        return odds_BG

    def _even_logit(
        self, head_BK: NDArray[np.float32], odds_BG: NDArray[np.float32], temperature: float
    ) -> NDArray[np.float32]:
        """The logit `[B]` that all classes of the tail have, at most 0."""
        tail_classes = max(1, self.settings.num_classes - self.settings.head_size)
        even_B = np.zeros(len(head_BK), dtype=np.float32)
        for place, weight in interpolation(self.settings.temperatures, temperature):
            node = self.settings.temperatures[place]
            log_mass_B = odds_BG[:, place] + _log_sums(head_BK, (node,))[:, 0]
            even_B += np.float32(weight * node) * (log_mass_B - np.float32(np.log(tail_classes)))
        return np.minimum(even_B, 0)

    def _check(
        self, classes_BK: NDArray[np.integer], head_BK: NDArray[np.float32], odds_BG: NDArray[np.float16]
    ) -> None:
        rising = (classes_BK[:, 1:] > classes_BK[:, :-1]).all() and (
            classes_BK[:, -1] < self.settings.num_classes
        ).all()
        below = (head_BK.max(axis=1) == 0).all() and np.isfinite(head_BK).all()
        if not (rising and below and np.isfinite(odds_BG).all()):
            raise CorruptObject(
                "a row of topk has classes that do not rise or that the teacher has not, no largest logit of "
                "0, or a value that is not finite; it is damaged"
            )


def interpolation(temperatures: tuple[float, ...], temperature: float) -> tuple[tuple[int, float], ...]:
    """Places in the grid and their weights, linear in log T; one where T is of the grid or beyond."""
    at = float(np.interp(np.log(temperature), np.log(temperatures), np.arange(len(temperatures))))
    if temperature in temperatures:
        at = temperatures.index(temperature)
    place, weight = int(at), at - int(at)
    return ((place, 1 - weight), (place + 1, weight)) if weight else ((place, 1.0),)


def _largest(shifted_BC: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Classes `[B, count]` of the largest logits, rising; of equal ones the lower."""
    B, C = shifted_BC.shape
    least_B1 = np.partition(shifted_BC, C - count, axis=1)[:, C - count, None]
    chosen_BC = shifted_BC >= least_B1
    for row in np.flatnonzero(np.count_nonzero(chosen_BC, axis=1) > count):
        ties = np.flatnonzero(shifted_BC[row] == least_B1[row])
        chosen_BC[row, ties[count - int(chosen_BC[row].sum()) :]] = False
    classes_BK: NDArray[np.int64] = np.flatnonzero(chosen_BC).reshape(B, count)
    classes_BK -= (np.arange(B) * C)[:, None]
    return classes_BK


def _log_sums(logits_BN: NDArray[np.float32], temperatures: tuple[float, ...]) -> NDArray[np.float32]:
    """The log of the sum of exp(logits / T) for each T `[B, G]`."""
    largest_B = logits_BN.max(axis=1)
    below_BN = logits_BN - largest_B[:, None]
    scratch_BN = np.empty_like(below_BN)
    log_sums_BG = np.empty((len(logits_BN), len(temperatures)), dtype=np.float32)
    for place, temperature in enumerate(temperatures):
        np.multiply(below_BN, np.float32(1 / temperature), out=scratch_BN)
        sum_B = np.exp(scratch_BN, out=scratch_BN).sum(axis=1)
        log_sums_BG[:, place] = np.log(sum_B) + largest_B / np.float32(temperature)
    return log_sums_BG
