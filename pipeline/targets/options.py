"""The section `[targets]` of a student's file: which teachers, how combined, how soft."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from softcask.pipeline.parts import Options
from softcask.pipeline.targets.rules.registry import RULES
from softcask.pipeline.targets.soft_targets import LogitSource, SoftTargets
from softcask.pipeline.targets.temperature import TemperatureSchedule
from softcask.storage_schemas.views import MOST_VIEWS


def _known_rule(kind: str) -> str:
    RULES.get(kind)
    return kind


PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]


class TargetOptions(Options):
    """What a student learns from.

    Attributes:
        teachers: Names in the store; None takes every teacher of role `member`.
        rule: How they are combined: `mean`, `geometric`, or a third party's.
        weights: One a teacher, in their order, of any sum; None weighs them equally.
        views: Numbers of the views that are learned from, one an epoch in turn; 0 is the rows as they are.
            None takes all that these teachers have labelled whole.
        temperature: T of the soft targets and of the student while it is trained; where a schedule begins.
        schedule: `[targets.schedule]`: how T moves over the epochs; it stays as it is by default.
    """

    teachers: tuple[str, ...] | None = Field(default=None, min_length=1)
    rule: Annotated[str, AfterValidator(_known_rule)] = "mean"
    weights: tuple[PositiveFloat, ...] | None = None
    views: tuple[Annotated[int, Field(ge=0, le=MOST_VIEWS)], ...] | None = Field(default=None, min_length=1)
    temperature: PositiveFloat = 4.0
    schedule: TemperatureSchedule = TemperatureSchedule()

    def temperatures(self, epochs: int) -> tuple[float, ...]:
        """T of each of so many epochs."""
        return self.schedule.temperatures(self.temperature, epochs)

    def open(self, store: LogitSource) -> SoftTargets:
        """The soft targets that this section describes; see `SoftTargets` for what is refused."""
        return SoftTargets(store, self.teachers, self.rule, self.weights)
