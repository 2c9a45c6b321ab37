"""The section `[views]`: how rows are augmented, and in a run file how often."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from softcask.pipeline.config.sections import ByKind
from softcask.pipeline.parts import Options
from softcask.pipeline.views.base import MixingOptions, StepOptions
from softcask.pipeline.views.registry import STEPS
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.views import MOST_VIEWS


class AugmentationOptions(Options):
    """What a view does to a row.

    Attributes:
        seed: With a row's id and the view's number it decides all that is random.
        steps: What is done, in order; at most one of them mixes rows.
    """

    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: tuple[Annotated[StepOptions, ByKind(STEPS)], ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _check_mixing(self) -> Self:
        mixing = [step.kind for step in self.steps if isinstance(step, MixingOptions)]
        if len(mixing) > 1:
            raise ConfigError(
                f"{len(mixing)} steps mix rows ({', '.join(mixing)}), expected one at most: a partner's "
                "partner would have to be read, too. Label them as views of two stores, or choose one"
            )
        return self


class ViewsOptions(AugmentationOptions):
    """`[views]` of a run file: beside the row itself (view 0), views 1 to `count` of every row are labelled.

    Attributes:
        count: How many; more of them may be asked for later.
    """

    count: int = Field(default=1, ge=1, le=MOST_VIEWS)

    @property
    def numbers(self) -> tuple[int, ...]:
        """1 to `count`."""
        return tuple(range(1, self.count + 1))


def planned_views(options: ViewsOptions | None) -> tuple[int, ...]:
    """Numbers of the views that a run labels: 0, and those of its section `[views]`."""
    return (0, *(options.numbers if options is not None else ()))
