"""A store with the inputs that belong to its rows: joined, checked, chosen from, read a pick at a time.

One is what most students learn from; several are mixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.student.loading.dataset_rows import Hashes, Ids
from softcask.pipeline.student.loading.inputs import InputRows, input_rows
from softcask.pipeline.student.loading.joining import (
    Coverage,
    JoinedRows,
    Match,
    join,
    refuse_other_content,
    refuse_unknown_content,
)
from softcask.pipeline.student.loading.recognition import Recognition
from softcask.pipeline.student.loading.replaying import MixedLabels, ReplayedInputs
from softcask.pipeline.student.loading.selecting import Selection, selection_of
from softcask.pipeline.targets.in_view import chosen_views
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.views.options import AugmentationOptions, ViewsOptions
from softcask.storage_schemas.errors import ConfigError

StoreLike = str | PathLike[str] | Store | SoftTargets


class PartOptions(TypedDict, total=False):
    """What `part` takes besides a store; `loader` takes the same for its only part.

    Attributes:
        inputs: A transfer set, its section (`{"kind": "idx", ...}` or the options of one), a map-style torch
            dataset, or None for targets alone.
        ids: Of a dataset's rows, as the store has them: all; a function of a row's index; or the name of the
            dataset's attribute that holds them.
        hashes: Content hashes of a dataset's rows (raw, or hexadecimal), or a function of an item that gives
            one, or gives as an array what the teacher was given. Without, the ids alone are compared.
        collate: Makes a batch's inputs of a dataset's items; torch's `default_collate` otherwise.
        teachers: Names in the store, or one; None takes all of role `member`.
        rule: How they are combined: `mean` or `geometric`.
        teacher_weights: One a teacher; None weighs them equally.
        coverage: `all`: inputs and stored rows must be the same; `intersection`: what both have.
        match: `content`, or `id` to allow rows whose content the store does not know.
        select: Which rows: a `Selection`, or what it is made of as a mapping.
        row_weights: What rows count in the loss, by sample id (others count 1), or one for each row of the
            store; None: all the same.
        allow_partial: Open the store although not all that was planned is labelled and sealed.
        views: Numbers of the views that are learned from, one an epoch in turn; None takes all that these
            teachers have labelled whole. Inputs are augmented as the teachers' were; 0 is rows as they are.
        augmentation: What the views do, as a section `[views]`, where that takes code that a store cannot
            bring about.
    """

    inputs: Any
    ids: Ids | None
    hashes: Hashes | None
    collate: Callable[[list[Any]], Any] | None
    teachers: Sequence[str] | str | None
    rule: str
    teacher_weights: Sequence[float] | None
    coverage: Coverage
    match: Match
    select: Selection | Mapping[str, Any] | None
    row_weights: Mapping[str, float] | Sequence[float] | None
    allow_partial: bool
    views: Sequence[int] | None
    augmentation: AugmentationOptions | Mapping[str, Any] | None


def part(
    store: StoreLike,
    *,
    inputs: Any = None,
    ids: Ids | None = None,
    hashes: Hashes | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    teachers: Sequence[str] | str | None = None,
    rule: str = "mean",
    teacher_weights: Sequence[float] | None = None,
    coverage: Coverage = "all",
    match: Match = "content",
    select: Selection | Mapping[str, Any] | None = None,
    row_weights: Mapping[str, float] | Sequence[float] | None = None,
    allow_partial: bool = False,
    views: Sequence[int] | None = None,
    augmentation: AugmentationOptions | Mapping[str, Any] | None = None,
) -> Part:
    """A store with its inputs; reads ids and labels, no logits, and no inputs but a few to try a view.

    Args:
        store: A path or URL, an open store, or teachers of one that are combined already.
        inputs: See `PartOptions`, as all others.
        ids: ...
        hashes: ...
        collate: ...
        teachers: ...
        rule: ...
        teacher_weights: ...
        coverage: ...
        match: ...
        select: ...
        row_weights: ...
        allow_partial: ...
        views: ...
        augmentation: ...

    Raises:
        MisalignedRows: Inputs and store do not match, see `join`.
        TransferSetError: Inputs that cannot be used: ids that repeat, labels out of range.
        ConfigError: Teachers, rows or weights that the store does not have.
        StoreError: The store cannot be read, or no row is left.
    """
    if isinstance(store, SoftTargets):
        if teachers is not None or teacher_weights is not None or rule != "mean":
            raise ConfigError("teachers are combined already: leave teachers, rule and teacher_weights out")
        targets = store
    else:
        opened = store if isinstance(store, Store) else open_store(fspath(store), allow_partial=allow_partial)
        names = [teachers] if isinstance(teachers, str) else teachers
        targets = SoftTargets(opened, names, rule, teacher_weights)
    rows_in = input_rows(inputs, ids=ids, hashes=hashes, collate=collate)
    joined = join(rows_in, targets, coverage)
    if rows_in is not None and rows_in.tells_content and match == "content":
        refuse_unknown_content(targets.store, joined)
    if rows_in is not None and rows_in.known_hashes is not None:
        hashes_N = rows_in.known_hashes[joined.positions_N]
        refuse_other_content(targets.store, joined.rows_N, hashes_N, "the dataset")
    whole, chosen = joined, _views(targets, views)
    if select is not None:
        joined = selection_of(select).of(joined, targets)
    made = Part(targets, joined, rows_in, _weights(row_weights, targets, joined))
    made.views = chosen
    if rows_in is not None and any(chosen):
        replayed = made.replayed = ReplayedInputs(
            _store_of(targets), rows_in, whole, chosen, _augmentation(augmentation), made.recognition
        )
        # What cannot be replayed is to be told now, and not by the second epoch.
        replayed.read(joined.rows_N[:1], next(filter(None, chosen)))
    return made


class Part:
    """Joined rows of a store and its inputs. Picklable; read by several threads and processes at once.

    Attributes:
        targets: Teachers of an open store, combined.
        rows: The rows.
        inputs: Where their inputs come from; None: there are none.
        weights_N: What each row counts in the loss; None: all the same.
        recognition: Of its rows' content.
        views: Numbers of the views that are learned from, one an epoch in turn.
        replayed: Inputs in views; None where there are none but the rows as they are.
    """

    views: tuple[int, ...] = (0,)
    replayed: ReplayedInputs | None = None

    def __init__(
        self,
        targets: SoftTargets,
        rows: JoinedRows,
        inputs: InputRows | None,
        weights_N: NDArray[np.float32] | None,
    ) -> None:
        """What `part` has put together."""
        self.targets, self.rows, self.inputs, self.weights_N = targets, rows, inputs, weights_N
        self.recognition = Recognition(targets.store)

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    def share(self) -> None:
        """Tell worker processes what is recognised already, and be told by them."""
        self.recognition.share()

    def mixes(self, view: int) -> bool:
        """Whether a view mixes inputs with each other."""
        return self.replayed is not None and self.replayed.mixes(view)

    def read_view(self, picked_B: NDArray[np.int64], view: int) -> tuple[Any, MixedLabels | None]:
        """Inputs of rows in a view, and the labels that are mixed, where rows are; see `read`.

        Raises:
            ManifestMismatch: Rows do not come out in this view as they did where it was pinned.
            SoftcaskError: As `read`, and as the view's steps do.
        """
        if view == 0 or self.replayed is None:
            return self.read(picked_B), None
        return self.replayed.read(self.rows.rows_N[picked_B], view)

    def read(self, picked_B: NDArray[np.int64]) -> Any:
        """Inputs of rows as they are, by their number among these; None where there are none.

        Raises:
            MisalignedRows: One's content is not what the teachers saw; looked at when a row first comes.
            TransferSetError: One cannot be read.
        """
        if self.inputs is None:
            return None
        read = self.inputs.read(self.rows.positions_N[picked_B])
        self.recognition.look(read, self.rows.rows_N[picked_B])
        return read.values

    def sample_ids(self, picked_B: NDArray[np.int64]) -> list[str]:
        """Ids of rows by their number among these."""
        ids: list[str] = self.targets.store.rows.sample_ids[self.rows.rows_N[picked_B]].tolist()
        return ids

    @cached_property
    def digest(self) -> str:
        """What says which rows these are and in which order: their ids, contents and labels."""
        stored, content = self.targets.store.rows, hashlib.sha256()
        for name in stored.sample_ids[self.rows.rows_N].tolist():
            content.update(name.encode() + b"\0")
        content.update(stored.content_hashes[self.rows.rows_N].tobytes())
        content.update(np.ascontiguousarray(self.rows.labels_N).tobytes())
        return f"sha256:{content.hexdigest()}"


def _weights(
    given: Mapping[str, float] | Sequence[float] | None, targets: SoftTargets, rows: JoinedRows
) -> NDArray[np.float32] | None:
    if given is None:
        return None
    stored = targets.store.rows
    if isinstance(given, Mapping):
        weights_S = np.ones(len(stored), np.float32)
        found = stored.find(list(given))
        if (found < 0).any():
            name = list(given)[int(np.flatnonzero(found < 0)[0])]
            raise ConfigError(f"row_weights has {name!r}, which is no row of {targets.store.uri}")
        weights_S[found] = np.fromiter(given.values(), np.float32, len(given))
    else:
        weights_S = np.asarray(given, np.float32)
        if weights_S.shape != (len(stored),):
            raise ConfigError(
                f"row_weights has the shape {list(weights_S.shape)}, expected one for each of the "
                f"{len(stored)} rows of {targets.store.uri}, or a mapping by sample id"
            )
    if not (np.isfinite(weights_S) & (weights_S >= 0)).all():
        raise ConfigError("row_weights must be finite and not below 0")
    return weights_S[rows.rows_N]


def _store_of(targets: SoftTargets) -> Store:
    """The store that soft targets are of.

    Raises:
        ConfigError: They are of something else, which has no views.
    """
    if not isinstance(targets.store, Store):
        raise ConfigError(
            f"{targets.store.uri} is no store that was opened by `open_store`, and has no views"
        )
    return targets.store


def _views(targets: SoftTargets, wanted: Sequence[int] | None) -> tuple[int, ...]:
    if wanted is None and not isinstance(targets.store, Store):
        return (0,)
    return chosen_views(_store_of(targets), targets.teachers, wanted)


def _augmentation(
    given: AugmentationOptions | Mapping[str, Any] | None,
) -> AugmentationOptions | None:
    if not isinstance(given, Mapping):
        return given
    try:
        return ViewsOptions.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"augmentation is no valid section [views]: {error}") from error
