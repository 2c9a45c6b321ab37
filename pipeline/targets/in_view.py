"""Soft targets of a view: the same teachers, asked about the rows as that view has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.reading.reader import Store
from softcask.pipeline.store.rows import Rows
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.manifest import SegmentManifest, TeacherManifest


class StoreInView:
    """A store of which one view is read, as a source of logits.

    Attributes:
        view_number: Which.
    """

    def __init__(self, store: Store, view: int) -> None:
        """Look at a store's rows in one view."""
        self._store, self.view_number = store, view

    @property
    def uri(self) -> str:
        """See `LogitSource`, as the others."""
        return self._store.uri

    @property
    def class_names(self) -> Sequence[str]:
        """..."""
        return self._store.class_names

    @property
    def rows(self) -> Rows:
        """..."""
        return self._store.rows

    @property
    def segments(self) -> Sequence[SegmentManifest]:
        """..."""
        return self._store.segments

    @property
    def teachers(self) -> Mapping[str, TeacherManifest]:
        """..."""
        return self._store.teachers

    def missing_units(self, teacher: str) -> Sequence[tuple[str, int]]:
        """..."""
        return self._store.missing_units(teacher, view=self.view_number)

    def logits(self, teacher: str, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """..."""
        return self._store.logits(teacher, rows_B, view=self.view_number)

    def logits_at(self, teacher: str, rows_B: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """..."""
        return self._store.logits_at(teacher, rows_B, temperature, view=self.view_number)

    def codec(self, teacher: str) -> Codec:
        """..."""
        return self._store.codec(teacher)

    def encoded(self, teachers: str | Sequence[str], rows_B: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """..."""
        return self._store.encoded(teachers, rows_B, view=self.view_number)


def in_view(targets: SoftTargets, store: Store, view: int) -> SoftTargets:
    """The same soft targets of the rows in a view.

    Args:
        targets: Of the rows as they are.
        store: Theirs.
        view: Number of the view.

    Raises:
        StoreError: The store has no such view.
    """
    if view == 0:
        return targets
    store.view(view)
    other = copy(targets)
    other.store = StoreInView(store, view)
    return other


def chosen_views(store: Store, teachers: Sequence[str], wanted: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of the views that a student learns from, one an epoch in turn.

    Args:
        store: Open.
        teachers: Whose soft targets.
        wanted: As the student's file says; None takes all that these teachers have labelled whole, view 0,
            the rows as they are, among them.

    Raises:
        ConfigError: A view is named twice, or none.
        StoreError: The store has no such view.
    """
    if wanted is None:
        return store.complete_views(teachers) or (0,)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(f"views are {list(wanted)}; expected one or more numbers, each once")
    for view in wanted:
        if view:
            store.view(view)
    return tuple(wanted)
