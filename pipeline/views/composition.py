"""A view of a batch: its steps one after another, the same for a row whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.views.base import MixingOptions, StepOptions
from softcask.pipeline.views.draws import PARTNER, Draws, row_keys
from softcask.pipeline.views.options import AugmentationOptions
from softcask.pipeline.views.registry import STEPS
from softcask.storage_schemas.errors import ConfigError, StoreError
from softcask.storage_schemas.views import ViewManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewed:
    """A batch in some view.

    Attributes:
        inputs_B: `[B, *row]`.
        share_B: How much of each is the row itself, and not its partner; None where the view mixes no rows.
            Labels mix alike: a hard loss is `share * loss(label) + (1 - share) * loss(partner's label)`.
    """

    inputs_B: NDArray[Any]
    share_B: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the views of a store do to its rows.

    Attributes:
        seed: See `AugmentationOptions`.
        steps: In order.
    """

    seed: int
    steps: tuple[StepOptions, ...]

    @classmethod
    def of(cls, options: AugmentationOptions) -> Views:
        """As a run's or a student's file describes them."""
        return cls(seed=options.seed, steps=options.steps)

    @classmethod
    def of_manifest(cls, manifest: ViewManifest, place: str) -> Views:
        """As a store pins them; but nothing that a store names is imported.

        Args:
            manifest: What a view is pinned to; untrusted.
            place: The store, for messages.

        Raises:
            StoreError: A step calls code of the user's, or is not known here in this version.
        """
        steps = tuple(_step(facts, f"view {manifest.view} of {place}") for facts in manifest.steps)
        return cls(seed=manifest.seed, steps=steps)

    @property
    def mixes(self) -> bool:
        """Whether rows are mixed with partners."""
        return any(isinstance(step, MixingOptions) for step in self.steps)

    def facts(self) -> dict[str, Any]:
        """What a store pins of them."""
        return {"seed": self.seed, "steps": [step.facts() for step in self.steps]}

    def recorded(self) -> dict[str, Any]:
        """Facts worth keeping beside those."""
        return {name: fact for step in self.steps for name, fact in step.recorded().items()}

    def partners(
        self, sample_ids: Sequence[str], rank_B: NDArray[np.int64], rows: int, view: int
    ) -> NDArray[np.int64]:
        """Each row's partner: another one of the segment, any of them equally likely.

        Args:
            sample_ids: Ids of B rows.
            rank_B: Their places among the readable rows of their segment, as it was indexed.
            rows: How many readable rows that has; the partner of an only row is itself.
            view: Number of the view.

        Returns:
            The partners' places `[B]` among the same.
        """
        draws = Draws(sample_ids, row_keys(sample_ids, self.seed), view, PARTNER)
        return (rank_B + 1 + draws.below(max(rows - 1, 1))) % rows

    def apply(
        self,
        inputs_B: NDArray[Any],
        sample_ids: Sequence[str],
        view: int,
        *,
        partners: tuple[NDArray[Any], Sequence[str]] | None = None,
    ) -> Viewed:
        """A batch in a view.

        Args:
            inputs_B: Rows `[B, *row]` as the transfer set has them.
            sample_ids: Their ids.
            view: Number of the view; 0 is the rows as they are.
            partners: The partners' rows `[B, *row]` and ids, where rows are mixed: before they are mixed
                with, they go through the steps before, as they do in this view themselves.

        Raises:
            ConfigError: Rows that a step does not take.
            FactoryError: Code of the user's failed.
        """
        if view == 0 or not len(inputs_B):
            return Viewed(inputs_B=inputs_B)
        key_B, shares = row_keys(sample_ids, self.seed), None
        other_B, other_ids = partners if partners is not None else (None, [])
        other_key_B = row_keys(other_ids, self.seed)
        for number, step in enumerate(self.steps):
            draws = Draws(sample_ids, key_B, view, number)
            if not isinstance(step, MixingOptions):
                inputs_B = step.apply(inputs_B, draws)
                if other_B is not None:
                    other_B = step.apply(other_B, Draws(other_ids, other_key_B, view, number))
            elif other_B is not None:
                inputs_B, shares = step.mix(inputs_B, other_B, draws)
                other_B = None  # what is done from here on is done to the mixed row
            else:
                raise ConfigError(
                    f"a view's step {step.kind!r} mixes rows, and their partners were not given"
                )
        return Viewed(inputs_B=inputs_B, share_B=shares)


def _step(facts: Mapping[str, Any], where: str) -> StepOptions:
    kind, version = facts.get("kind"), facts.get("version")
    if kind not in STEPS.builtin:
        raise StoreError(f"{where} has a step of kind {kind!r}, which is none of softcask's own. {_STATE_IT}")
    model = STEPS.get(str(kind))
    if model.imports_code:
        named = facts.get("function") or facts.get("transform")
        raise StoreError(f"{where} calls {named!r}, and nothing that a store names is imported. {_STATE_IT}")
    if version != model.version:
        raise StoreError(
            f"{where}: step {kind!r} is of version {version}, this softcask has version {model.version}, "
            "which gives other rows. Use the softcask that labelled it, or leave the view out"
        )
    try:
        return model.model_validate({name: each for name, each in facts.items() if name != "version"})
    except ValidationError as error:
        raise StoreError(
            f"{where}: step {kind!r} has options that this softcask does not take: {error}"
        ) from error


_STATE_IT = "Write the section [views] of the run that labelled it into your own file"
