"""Targets of joined rows, by number: kept whole where they are small, else made when a batch asks.

Made anew, a row costs a gather from where it lies and what combines the teachers. Kept ones are gathered by
the process that trains, for to send a row costs more than that; workers make those that are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import to_tensor
from softcask.pipeline.targets.in_view import in_view
from softcask.storage_schemas.codecs.registry import codec_from

if TYPE_CHECKING:
    from softcask.pipeline.student.losses.base import Needs
    from softcask.pipeline.targets.soft_targets import SoftTargets

_FILL_BYTES = 4 << 20
"""Bytes of targets that are made at one time: what the allocator has at hand again."""


class TargetRows:
    """What a loss needs of N rows.

    Attributes:
        row_bytes: Bytes of a row's targets; 0 where only labels are needed.
        stored_bytes: Bytes that are read for them.
        kept: Whether those of all rows are made when the first are taken, and kept until others are.
    """

    def __init__(self, targets: SoftTargets, rows_N: NDArray[np.int64], needs: Needs) -> None:
        """Nothing is read yet.

        Args:
            targets: Teachers of an open store, combined.
            rows_N: The rows' numbers in the store.
            needs: What comes of them.

        Raises:
            StoreError: Logits are needed of a teacher that has absent classes; or what is stored of several
                teachers, or of one whose rows have no fixed size.
        """
        if needs == "logits":
            targets.check_logits()
        if needs == "compressed":
            targets.check_compressed()
        self._targets, self._rows_N, self._needs = targets, rows_N, needs
        self.stored_bytes = 0 if needs == "labels" else _stored_bytes(targets)
        whole = {"labels": 0, "compressed": self.stored_bytes}
        self.row_bytes = whole.get(needs, 4 * targets.num_classes)
        self.kept = False
        self._key: tuple[float, int] | None = None
        self._kept: Mapping[str, torch.Tensor] = {}
        self._views: dict[int, SoftTargets] = {0: targets}

    def check(self, temperature: float) -> None:
        """Refuse a temperature that makes no sense, or that the logits were not kept for.

        Raises:
            ConfigError: T is not finite or not above 0.
            StoreError: A teacher's codec makes no claim at T.
        """
        if self._needs in ("probabilities", "compressed"):
            self._targets.check_temperature(temperature)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: whoever gets a copy in another process is not asked for it."""
        return {**self.__dict__, "_key": None, "_kept": {}}

    def _keep(self, temperature: float, view: int) -> None:
        """Make those of all rows, unless they are made."""
        if self._key == (temperature, view):
            return
        kept: dict[str, torch.Tensor] = {}
        step = max(1, _FILL_BYTES // self.row_bytes)
        for start in range(0, len(self._rows_N), step):
            made = self._made(self._rows_N[start : start + step], temperature, view)
            for name, values in made.items():
                some = to_tensor(values)
                if name not in kept:
                    kept[name] = some.new_empty((len(self._rows_N), *some.shape[1:]))
                kept[name][start : start + len(some)] = some
        self._kept, self._key = kept, (temperature, view)

    def take(self, picked_B: NDArray[np.int64], temperature: float, view: int) -> dict[str, NDArray[Any]]:
        """Targets `[B, ...]` of rows by their number among the N, by name of what they consist of."""
        if self._needs == "labels":
            return {}
        if not self.kept:
            return self._made(self._rows_N[picked_B], temperature, view)
        self._keep(temperature, view)
        # "clip" spares numpy a second look at numbers that are known to be in range.
        return {name: np.take(kept.numpy(), picked_B, 0, mode="clip") for name, kept in self._kept.items()}

    def bound(self, made: Mapping[str, Any]) -> Any:
        """What a loss is given, of what `take` has made; None where it needs labels alone."""
        return self._targets.compressed(made) if self._needs == "compressed" else made.get("")

    def _in_view(self, view: int) -> SoftTargets:
        if view not in self._views:
            store: Any = self._targets.store
            self._views[view] = in_view(self._targets, store, view)
        return self._views[view]

    def _made(self, rows_B: NDArray[np.int64], temperature: float, view: int) -> dict[str, NDArray[Any]]:
        targets = self._in_view(view)
        if self._needs == "compressed":
            return targets.columns(rows_B)
        if self._needs == "logits":
            return {"": targets.logits(rows_B)}
        return {"": targets.probabilities(rows_B, temperature)}


def _stored_bytes(targets: SoftTargets) -> int:
    """Bytes a row of all teachers, as they are stored."""
    total = 0
    for name in targets.teachers:
        entry = targets.store.teachers[name]
        columns = codec_from(entry.codec).columns(entry.num_classes - len(entry.absent_classes))
        total += sum(max(column.row_bytes, 1) for column in columns)
    return total
