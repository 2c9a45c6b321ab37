"""Blocks of batches made from picks of rows: by a thread of this process, or by a copy in another.

A block is several batches, where they are small: what a pick of rows costs beside its bytes is paid once for
all of them, and a batch is a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.student.loading.batch import StudentBatch, Values, changed
from softcask.pipeline.student.loading.parts import Part
from softcask.pipeline.student.loading.replaying import without_mixing
from softcask.pipeline.student.loading.target_rows import TargetRows
from softcask.storage_schemas.errors import ConfigError

BLOCK_BYTES = 4 << 20
"""Bytes of a block, unless one batch has more: what the allocator gives again without asking the system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Rows to be made batches of, in order.

    Attributes:
        epoch: Their epoch.
        picked_R: Rows of this process, by their number over all parts.
        sizes: Rows of each batch.
        done: Rows that all processes have consumed of the epoch once each batch is handed out.
        temperature: T of their targets.
        view: Number of the view.
    """

    epoch: int
    picked_R: NDArray[np.int64]
    sizes: tuple[int, ...]
    done: tuple[int, ...]
    temperature: float
    view: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What took time to make of a request.

    Attributes:
        inputs: Of all its rows.
        targets: Likewise, by name of what they consist of.
        mixing: Likewise, the fields of `MixedLabels` by name; none where no row is mixed with another.
    """

    inputs: Any
    targets: Mapping[str, Any]
    mixing: Mapping[str, Any]


class Serving:
    """Makes what batches consist of. Picklable; a copy in another process makes the same.

    Attributes:
        parts: What rows are of.
        targets: The targets of each.
    """

    def __init__(self, parts: Sequence[Part], targets: Sequence[TargetRows]) -> None:
        """Rows of these, numbered from 0 over all of them."""
        self.parts, self.targets = tuple(parts), tuple(targets)
        self._first = np.cumsum([0, *map(len, parts)])

    @property
    def row_bytes(self) -> int | None:
        """Bytes of a row and its targets; None where that is not known, and each batch is a block."""
        inputs = [0 if part.inputs is None else part.inputs.row_bytes for part in self.parts]
        known = [each for each in inputs if each is not None]
        if len(known) < len(inputs):
            return None
        return max(known) + max(targets.row_bytes for targets in self.targets)

    @property
    def keeps_targets(self) -> bool:
        """Whether targets of all rows are kept, by the process that trains and not by its workers."""
        return all(targets.kept for targets in self.targets)

    @property
    def reads_nothing(self) -> bool:
        """Whether there is nothing to be read for a request."""
        return self.keeps_targets and all(part.inputs is None for part in self.parts)

    def make(self, request: Request) -> Made:
        """What is read of a request's rows: inputs, and targets unless they are kept.

        Raises:
            MisalignedRows: A row's content is not what the teachers saw.
            TransferSetError: A row cannot be read.
            StoreError: The store cannot be read.
        """
        picked_R, view = request.picked_R, request.view
        inputs, mixing = self._gathered(picked_R, lambda number, rows: self._inputs(number, rows, view))
        made = Made(inputs=changed(inputs, _as_tensor), targets={}, mixing=changed(mixing, _as_tensor))
        return made if self.keeps_targets else self._with_targets(request, made)

    def complete(self, request: Request, made: Made) -> Made:
        """What was made, with targets that are kept; for one thread of the process that trains."""
        return self._with_targets(request, made) if self.keeps_targets else made

    def _with_targets(self, request: Request, made: Made) -> Made:
        def take(number: int, picked_r: NDArray[np.int64]) -> Any:
            return self.targets[number].take(picked_r, request.temperature, request.view)

        return replace(made, targets=changed(self._gathered(request.picked_R, take), _as_tensor))

    def _gathered(self, picked_R: NDArray[np.int64], of: Callable[[int, NDArray[np.int64]], Any]) -> Any:
        """What is of each part, put where its rows are; `of` is given a part's number and rows of it."""
        if len(self.parts) == 1:
            return of(0, picked_R)
        part_R = self.part_numbers(picked_R)
        places = {number: np.flatnonzero(part_R == number) for number in np.unique(part_R).tolist()}
        values = [of(number, picked_R[at_r] - self._first[number]) for number, at_r in places.items()]
        return merged(values, list(places.values()))

    def _inputs(self, number: int, picked_r: NDArray[np.int64], view: int) -> tuple[Any, dict[str, Any]]:
        part = self.parts[number]
        inputs, mixing = part.read_view(picked_r, view)
        if mixing is None and not any(each.mixes(view) for each in self.parts):
            return inputs, {}
        mixing = mixing or without_mixing(part.rows.labels_N[picked_r])
        return inputs, {"share_B": mixing.share_B, "partner_labels_B": mixing.partner_labels_B}

    def part_numbers(self, picked_R: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which part each row is of."""
        return np.searchsorted(self._first, picked_R, side="right") - 1


class Assembly:
    """Puts together what was made and what is known of all rows; in the process that trains."""

    def __init__(self, serving: Serving, *, pin: bool) -> None:
        """Labels and numbers of all rows, in one array each; `pin`: blocks go into pinned memory."""
        parts = serving.parts
        self._serving, self._pin = serving, pin
        self._labels_N = np.concatenate([part.rows.labels_N for part in parts])
        self._positions_N = np.concatenate([part.rows.positions_N for part in parts])
        self._rows_N = np.concatenate([part.rows.rows_N for part in parts])
        self._weights_N: NDArray[np.float32] | None = None
        if any(part.weights_N is not None for part in parts):
            ones = [np.ones(len(part), np.float32) for part in parts]
            given = [
                one if part.weights_N is None else part.weights_N
                for part, one in zip(parts, ones, strict=True)
            ]
            self._weights_N = np.concatenate(given)

    def block(self, request: Request, made: Made) -> StudentBatch:
        """All rows of a request, to be cut into batches. For one thread, which adds targets that are kept."""
        made, serving, weights_N = self._serving.complete(request, made), self._serving, self._weights_N
        picked_R = request.picked_R
        block = StudentBatch(
            inputs=made.inputs,
            targets=serving.targets[0].bound(made.targets),
            labels_B=torch.from_numpy(self._labels_N[picked_R]),
            positions_B=torch.from_numpy(self._positions_N[picked_R]),
            rows_B=torch.from_numpy(self._rows_N[picked_R]),
            weights_B=None if weights_N is None else torch.from_numpy(weights_N[picked_R]),
            temperature=request.temperature,
            view=request.view,
            share_B=made.mixing.get("share_B"),
            partner_labels_B=made.mixing.get("partner_labels_B"),
            sources_B=torch.from_numpy(serving.part_numbers(picked_R)) if len(serving.parts) > 1 else None,
        )
        return block.pin_memory() if self._pin else block


def merged(values: Sequence[Any], places: Sequence[NDArray[np.int64]]) -> Any:
    """Rows of several parts put where they belong, one array of each.

    Raises:
        ConfigError: They are of other shapes or types, or no arrays.
    """
    first = values[0]
    if first is None and all(value is None for value in values):
        return None
    if isinstance(first, Mapping) and all(isinstance(value, Mapping) for value in values):
        names = {name for value in values for name in value}
        if all(names == set(value) for value in values):
            return {name: merged([value[name] for value in values], places) for name in first}
    lists = [value for value in values if isinstance(value, list | tuple)]
    if len(lists) == len(values) and len({*map(len, lists)}) == 1:
        return [merged(each, places) for each in zip(*lists, strict=True)]
    arrays = [value.numpy() if isinstance(value, torch.Tensor) else value for value in values]
    kinds = {(value.shape[1:], value.dtype) if isinstance(value, np.ndarray) else None for value in arrays}
    if None in kinds or len(kinds) > 1:
        told = " and ".join(sorted({_told(value) for value in values}))
        raise ConfigError(
            f"parts that are mixed give {told}; expected rows of one shape and type, or dicts of such. Give "
            "the datasets a collate function that makes them so"
        )
    whole: NDArray[Any] = np.empty((sum(map(len, places)), *arrays[0].shape[1:]), arrays[0].dtype)
    for at_r, value in zip(places, arrays, strict=True):
        whole[at_r] = value
    return whole


def _told(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"rows of {list(shape[1:])} {value.dtype}"


def _as_tensor(values: Values) -> Values:
    """A tensor of numbers; text and byte strings stay arrays."""
    if isinstance(values, torch.Tensor) or values.dtype.kind not in "biufc":
        return values
    return to_tensor(values)
