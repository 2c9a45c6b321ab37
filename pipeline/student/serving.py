"""Blocks of batches made from picks of rows: by a thread of this process, or by a copy in another.

A block is several batches, where they are small: what a pick of rows costs beside its bytes is paid once for
all of them, and a batch is a slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.student.batch import StudentBatch, Values, changed, pinned
from softcask.pipeline.student.parts import Part
from softcask.pipeline.student.replaying import without_mixing
from softcask.pipeline.student.target_rows import TargetRows
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

    def pin_memory(self) -> Made:
        """The same in memory that a GPU fetches from by itself."""
        return replace(
            self,
            inputs=changed(self.inputs, pinned),
            targets=changed(self.targets, pinned),
            mixing=changed(self.mixing, pinned),
        )


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

    def make(self, request: Request) -> Made:
        """Inputs and targets of a request's rows.

        Raises:
            MisalignedRows: A row's content is not what the teachers saw.
            TransferSetError: A row cannot be read.
            StoreError: The store cannot be read.
        """
        if len(self.parts) == 1:
            inputs, targets, mixing = self._of_part(0, request.picked_R, request)
        else:
            part_R = self.part_numbers(request.picked_R)
            where = [np.flatnonzero(part_R == number) for number in range(len(self.parts))]
            made = [
                (at_r, self._of_part(number, request.picked_R[at_r] - self._first[number], request))
                for number, at_r in enumerate(where)
                if len(at_r)
            ]
            places = [at_r for at_r, _ in made]
            inputs, targets, mixing = (
                merged(list(each), places) for each in zip(*(m for _, m in made), strict=True)
            )
        return Made(
            inputs=changed(inputs, _as_tensor),
            targets=changed(targets, _as_tensor),
            mixing=changed(mixing, _as_tensor),
        )

    def _of_part(
        self, number: int, picked_R: NDArray[np.int64], request: Request
    ) -> tuple[Any, Any, dict[str, Any]]:
        part = self.parts[number]
        targets = self.targets[number].take(picked_R, request.temperature, request.view)
        inputs, mixing = part.read_view(picked_R, request.view)
        if mixing is None and not any(each.mixes(request.view) for each in self.parts):
            return inputs, targets, {}
        mixing = mixing or without_mixing(part.rows.labels_N[picked_R])
        return inputs, targets, {"share_B": mixing.share_B, "partner_labels_B": mixing.partner_labels_B}

    def part_numbers(self, picked_R: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which part each row is of."""
        return np.searchsorted(self._first, picked_R, side="right") - 1


class Binding:
    """Makes batches of what was made and of what is known of all rows; in the process that trains."""

    def __init__(self, serving: Serving, *, pin: bool) -> None:
        """Labels and numbers of all rows, in one array each."""
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

    def batches(self, request: Request, made: Made) -> Iterator[StudentBatch]:
        """The batches of a request."""
        picked_R, weights_N = request.picked_R, self._weights_N
        serving = self._serving
        whole = StudentBatch(
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
        if self._pin:
            whole = whole.pin_memory()
        for first, last in pairwise(accumulate(request.sizes, initial=0)):
            yield whole.cut(first, last)


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
