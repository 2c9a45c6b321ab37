"""T as it moves over a training: at one value through each epoch, so that targets are made once an epoch.

Students that begin at a high T see how classes lie to each other before they see which one is right (annealed
distillation, arXiv 2104.07163).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError


class TemperatureSchedule(Options):
    """`[targets.schedule]`: where T goes from `temperature`.

    Attributes:
        kind: `constant`; `linear` in T; `cosine`: slow at both ends, half-way at half time.
        to: T of the last epoch that it moves in, and of all after that; not of `constant`.
        epochs: Epochs that it moves in; None: all of the training.
    """

    kind: Literal["constant", "linear", "cosine"] = "constant"
    to: Annotated[FiniteFloat, Field(gt=0)] | None = None
    epochs: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "constant" and (self.to is not None or self.epochs is not None):
            raise ConfigError(
                "a constant schedule goes nowhere: leave out to and epochs, or name linear or cosine"
            )
        if self.kind != "constant" and self.to is None:
            raise ConfigError(f"a {self.kind} schedule ends somewhere: give the temperature as to")
        return self

    def temperatures(self, start: float, epochs: int) -> tuple[float, ...]:
        """T of each epoch.

        Args:
            start: T of the first.
            epochs: How many.
        """
        if self.to is None:
            return (start,) * epochs
        last = max(1, (self.epochs or epochs) - 1)
        return tuple(self._between(start, self.to, min(1.0, epoch / last)) for epoch in range(epochs))

    def _between(self, start: float, end: float, share: float) -> float:
        done = share if self.kind == "linear" else (1 - math.cos(math.pi * share)) / 2
        return start + done * (end - start)
