"""A part's inputs as its teachers saw them in some view, and the labels that are mixed where rows are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.store.reading.reader import Store
from softcask.pipeline.student.loading.inputs import InputRows
from softcask.pipeline.student.loading.joining import JoinedRows
from softcask.pipeline.student.loading.recognition import Recognition
from softcask.pipeline.views.options import AugmentationOptions
from softcask.pipeline.views.replay import Replay
from softcask.storage_schemas.errors import TransferSetError


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedLabels:
    """Labels of rows that are mixed with others; see `mixed_labels.batch_loss`.

    Attributes:
        partner_labels_B: Labels of the partners, -1 where one has none.
        share_B: The rows' own shares, float32.
    """

    partner_labels_B: NDArray[np.int64]
    share_B: NDArray[np.float32]


class ReplayedInputs:
    """Inputs of a store's rows, in views. Picklable; a copy in another process gives the same."""

    def __init__(
        self,
        store: Store,
        inputs: InputRows,
        rows: JoinedRows,
        views: Sequence[int],
        augmentation: AugmentationOptions | None,
        recognition: Recognition,
    ) -> None:
        """Find out what the views do; no input is read yet.

        Args:
            store: Where the views are pinned.
            inputs: The student's own.
            rows: All rows that both have: partners are among them, though only some are trained on.
            views: Numbers of the views.
            augmentation: The student's section `[views]`.
            recognition: Looks at rows' content before they are augmented.

        Raises:
            ManifestMismatch: The section describes a view otherwise than it is pinned.
            StoreError: A view that the store does not have, or that takes code which only a section can name.
        """
        self._inputs, self._recognition = inputs, recognition
        self._positions_S = np.full(len(store.rows), -1, dtype=np.int64)
        self._positions_S[rows.rows_N] = rows.positions_N
        self._labels_S = np.full(len(store.rows), -1, dtype=np.int64)
        self._labels_S[rows.rows_N] = rows.labels_N
        self._replay = Replay(store, views, inputs=self._read, rows_N=rows.rows_N, augmentation=augmentation)

    def mixes(self, view: int) -> bool:
        """Whether a view mixes rows with each other."""
        return self._replay.mixes(view)

    def read(self, rows_B: NDArray[np.int64], view: int) -> tuple[NDArray[Any], MixedLabels | None]:
        """Rows of the store in a view, by number, and the labels that are mixed, where rows are.

        Raises:
            MisalignedRows: A row's content is not what the teachers saw, or its partner is not among the
            inputs. ManifestMismatch: Rows do not come out in this view as they did where it was pinned.
            TransferSetError: A row cannot be read, or inputs are no array.
        """
        viewed = self._replay.read(rows_B, view)
        if viewed.partner_B is None or viewed.share_B is None:
            return viewed.inputs_B, None
        labels = MixedLabels(partner_labels_B=self._labels_S[viewed.partner_B], share_B=viewed.share_B)
        return viewed.inputs_B, labels

    def _read(self, rows_B: NDArray[np.int64]) -> NDArray[Any]:
        read = self._inputs.read(self._positions_S[rows_B])
        self._recognition.look(read, rows_B)
        values = read.values.numpy() if isinstance(read.values, torch.Tensor) else read.values
        if not isinstance(values, np.ndarray):
            raise TransferSetError(
                f"views are replayed on inputs that are one array, and these are a {type(values).__name__}: "
                "give the dataset a collate function that makes one of what the teachers were given; or take "
                "the rows as they are (views=[0])"
            )
        return values


def without_mixing(labels_B: NDArray[np.int64]) -> MixedLabels:
    """Rows that are themselves, beside others that are mixed."""
    return MixedLabels(partner_labels_B=labels_B, share_B=np.ones(len(labels_B), dtype=np.float32))
