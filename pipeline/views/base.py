"""What a step of a view is: options that a store pins, and a function of rows and of what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.parts import Options
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.pipeline.views.draws import Draws
from softcask.storage_schemas.errors import FactoryError, TransferSetError

Random = TypeVar("Random")

Probability = Annotated[float, Field(ge=0, le=1)]


class StepOptions(Options):
    """Base of a step, `[[views.steps]]`.

    Attributes:
        kind: Which augmentation.
        version: Of its code: counted up when equal options come to give other rows.
        imports_code: Whether it calls code that its options name; then no store can bring it about.
    """

    kind: str
    version: ClassVar[int] = 1
    imports_code: ClassVar[bool] = False

    def facts(self) -> dict[str, Any]:
        """What a store pins of it: kind, version, and all options that are set."""
        return {"kind": self.kind, "version": self.version, **self.model_dump(mode="json", exclude_none=True)}

    def recorded(self) -> dict[str, Any]:
        """Facts worth keeping beside those: versions of libraries, digests of sources."""
        return {}

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """Augment the rows of a batch, each by itself.

        Args:
            inputs_B: `[B, *row]`, B of 1 or more; left as they are.
            draws: All that may be random.

        Returns:
            `[B, *row']`, whose row i depends on row i alone.

        Raises:
            ConfigError: Rows that this step does not take.
        """
        raise NotImplementedError


class MixingOptions(StepOptions):
    """Base of a step that mixes each row with a partner, another row of its segment.

    Attributes:
        alpha: The row's share is of Beta(alpha, alpha).
        probability: Share of rows that are mixed at all.
    """

    alpha: float = Field(default=1.0, gt=0, le=1000)
    probability: Probability = 1.0

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """A row alone is not mixed."""
        return inputs_B

    def mix(
        self, inputs_B: NDArray[Any], partners_B: NDArray[Any], draws: Draws
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Mix each row with its partner.

        Args:
            inputs_B: `[B, *row]`.
            partners_B: The same of the partners, as the steps before have left them.
            draws: All that may be random.

        Returns:
            The mixed rows `[B, *row]`, and the share `[B]` of the row itself: 1 where nothing was mixed.

        Raises:
            ConfigError: Rows that this step does not take.
        """
        raise NotImplementedError

    def _shares(self, draws: Draws) -> NDArray[np.float64]:
        mixed_B = draws.chosen(self.probability)
        return np.where(mixed_B, draws.symmetric_beta(self.alpha), 1.0)


def row_by_row(
    augment: Callable[[Any, Random], Any],
    inputs_B: NDArray[Any],
    randoms: Iterable[Random],
    sample_ids: Sequence[str],
    what: str,
) -> NDArray[Any]:
    """What code of the user's makes of the rows of a batch, `[B, *row']`.

    Args:
        augment: From a row and what is random about it to an array, or text.
        inputs_B: `[B, *row]`.
        randoms: What is random, one a row.
        sample_ids: Ids of the rows.
        what: Whose code it is, for messages.

    Raises:
        FactoryError: It raised; says on which row.
        TransferSetError: It gave no numbers, or not all of one shape and dtype.
    """
    rows = []
    for sample_id, row, random in zip(sample_ids, inputs_B, randoms, strict=True):
        try:
            rows.append(augment(row, random))
        except Exception as error:
            raise FactoryError(
                f"{what} raised {type(error).__name__} on row {sample_id!r}: {error}"
            ) from error
    return _stacked(rows, sample_ids, what)


def _stacked(rows: Sequence[Any], sample_ids: Sequence[str], what: str) -> NDArray[Any]:
    if all(isinstance(row, str) for row in rows):
        return np.array(rows, dtype=TEXT)
    arrays = [np.asarray(row) for row in rows]
    first = arrays[0]
    for sample_id, array in zip(sample_ids, arrays, strict=True):
        if array.dtype.kind not in "biuf":
            raise TransferSetError(
                f"{what} gave {type(rows[0]).__name__} of {array.dtype} for row {sample_id!r}; expected an "
                "array of integers, booleans or floats, or text"
            )
        if array.shape != first.shape or array.dtype != first.dtype:
            raise TransferSetError(
                f"{what} gave {array.dtype} {list(array.shape)} for row {sample_id!r}, and {first.dtype} "
                f"{list(first.shape)} for {sample_ids[0]!r}; all rows of a view must be alike"
            )
    return np.stack(arrays)
