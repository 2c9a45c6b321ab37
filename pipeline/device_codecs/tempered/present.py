"""Rows of a teacher that never gives some classes: what it keeps, among all classes of a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcask.pipeline.device_codecs.base import Tensors
from softcask.pipeline.device_codecs.registry import kept_device_codec
from softcask.pipeline.device_codecs.tempered.base import TemperedRows
from softcask.storage_schemas.absent import Absent, present_classes
from softcask.storage_schemas.codecs.base import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentRows:
    """Soft targets of the classes that a teacher has; p of the others is 0.

    Attributes:
        kept: The soft targets of those alone.
        classes_K: int64 on the host, which they are, rising.
        on_device_K: The same beside the logits.
    """

    kept: TemperedRows
    classes_K: NDArray[np.int64]
    on_device_K: Tensor

    @property
    def sums_B(self) -> Tensor:
        """See `TemperedRows`."""
        return self.kept.sums_B

    def subtract_from(self, values_Bn: Tensor, first: int) -> None:
        """See `TemperedRows`."""
        n = values_Bn.shape[1]
        start, stop = np.searchsorted(self.classes_K, (first, first + n)).tolist()
        if stop - start == n:
            return self.kept.subtract_from(values_Bn, start)
        if start < stop:
            less_Bk = values_Bn.new_zeros(len(values_Bn), stop - start)
            self.kept.subtract_from(less_Bk, start)
            values_Bn.index_add_(1, self.on_device_K[start:stop] - first, less_Bk)
        return None


def met(
    codec: Codec, columns: Tensors, absent: Absent, temperature: float, logits_BC: Tensor
) -> TemperedRows:
    """Soft targets at T from columns on a device, met with a student's logits `[B, C]` there.

    Raises:
        StoreError: The codec does not run on devices.
    """
    twin = kept_device_codec(codec, logits_BC.device)
    if not absent:
        return twin.tempered(columns, temperature, logits_BC)
    classes_K = present_classes(logits_BC.shape[1], absent)
    on_device_K = _on_device(logits_BC.shape[1], absent, logits_BC.device)
    if classes_K[-1] == len(classes_K) - 1:  # a padded output layer: all that is absent is at the end
        present_BK = logits_BC[:, : len(classes_K)]
    else:
        present_BK = logits_BC.index_select(1, on_device_K)
    kept = twin.tempered(columns, temperature, present_BK)
    return PresentRows(kept=kept, classes_K=classes_K, on_device_K=on_device_K)


@lru_cache(maxsize=8)
def _on_device(num_classes: int, absent: Absent, device: torch.device) -> Tensor:
    """Classes that are stored; kept, for a copy at every step would make the host wait for the device."""
    return torch.tensor(present_classes(num_classes, absent), device=device)
