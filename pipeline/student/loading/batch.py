"""What a training step is given: inputs, what the teachers think of them, labels, and which rows they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from softcask.pipeline.targets.compressed import CompressedTargets

Values = torch.Tensor | NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentBatch:
    """B rows to train on: tensors, on the host until `to` moves them.

    Attributes:
        inputs: `[B, *input_shape]` as the transfer set has them (text: a NumPy array of strings); or what the
            collate function made of a dataset's items; None where there are targets alone.
        targets: Soft targets `[B, C]` at `temperature`, float32; or the teachers' mean logits; or what is
            stored of one teacher; None where labels alone are needed.
        labels_B: Class indices, int64, -1 where a row has none.
        positions_B: The rows' positions in the student's inputs, or their numbers in the store where there
            are no inputs.
        rows_B: Their numbers in the store.
        weights_B: What each row counts in the loss, float32; None: all the same.
        temperature: T of the targets.
        view: Number of the view that inputs and targets are of.
        share_B: Where the view mixes rows with partners: how much of each is the row itself, float32. A hard
            loss is `share * loss(label) + (1 - share) * loss(partner's label)`; see
            `mixed_labels.batch_loss`.
        partner_labels_B: The partners' labels, -1 where one has none; None where none are mixed.
        sources_B: Which of several mixed parts each row is of, by number; None where there is one.
    """

    inputs: Any
    targets: torch.Tensor | CompressedTargets | None
    labels_B: torch.Tensor
    positions_B: torch.Tensor
    rows_B: torch.Tensor
    weights_B: torch.Tensor | None = None
    temperature: float = 1.0
    view: int = 0
    share_B: torch.Tensor | None = None
    partner_labels_B: torch.Tensor | None = None
    sources_B: torch.Tensor | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.labels_B)

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> StudentBatch:
        """The batch on a device; what comes from pinned memory is not waited for. Text stays where it is."""
        return self._changed(lambda values: moved(values, device, non_blocking))

    def pin_memory(self) -> StudentBatch:
        """The batch in memory that a GPU fetches from by itself."""
        return self._changed(pinned)

    def cut(self, first: int, last: int) -> StudentBatch:
        """Rows from `first` to `last`, without a copy. Inputs must be one array, unless that is all rows."""
        if (first, last) == (0, len(self)):
            return self
        return self._changed(lambda values: values[first:last])

    def _changed(self, change: Callable[[Values], Values]) -> StudentBatch:
        return StudentBatch(**{name: changed(getattr(self, name), change) for name in _names()})


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(each.name for each in fields(StudentBatch))


def changed(values: Any, change: Callable[[Values], Values]) -> Any:
    """Tensors and arrays changed, in dicts, lists, tuples and columns too; the rest as it is."""
    if isinstance(values, torch.Tensor | np.ndarray):
        return change(values)
    if isinstance(values, Mapping):
        return {key: changed(value, change) for key, value in values.items()}
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(changed(value, change) for value in values))
    if isinstance(values, list | tuple):
        return type(values)(changed(value, change) for value in values)
    if is_dataclass(values) and hasattr(values, "columns"):
        return replace(values, columns=changed(values.columns, change))  # type: ignore[type-var]
    return values


def pinned(values: Values) -> Values:
    """A tensor in pinned memory."""
    return values.pin_memory() if isinstance(values, torch.Tensor) else values


def moved(values: Values, device: torch.device | str, non_blocking: bool) -> Values:
    """A tensor on a device."""
    return values.to(device, non_blocking=non_blocking) if isinstance(values, torch.Tensor) else values
