"""Soft targets as they are stored: a teacher's columns, and what makes sense of them where the student is.

A row of 49,152 classes is 256 bytes in a store and 196,608 as float32. Whoever sends it to a device, or keeps
an epoch of it in memory, wants the former; and the loss takes its sums from that, a few classes at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from softcask.storage_schemas.absent import Absent
from softcask.storage_schemas.codecs.base import Codec

if TYPE_CHECKING:
    import torch

    from softcask.pipeline.device_codecs.tempered.base import TemperedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedTargets:
    """What one teacher thinks of B rows, at any temperature that its codec is good for.

    Attributes:
        columns: By name, `[B, *row_shape]`: numpy arrays as a store gives them, or tensors of one device.
        codec: What they were made by, with the arrays that it keeps once. Those may be large: a process that
            only reads rows sends `columns` home and leaves this there.
        num_classes: C, with the classes that the teacher never gives.
        absent_classes: Those, rising; of probability 0.
    """

    columns: Mapping[str, Any]
    codec: Codec
    num_classes: int
    absent_classes: Absent = ()

    def __len__(self) -> int:
        """B."""
        return len(next(iter(self.columns.values())))

    def to(self, device: torch.device | str) -> CompressedTargets:
        """The same with columns as tensors on `device`; copies from pinned memory are not waited for."""
        from softcask.pipeline.device_codecs.base import to_tensors

        return replace(self, columns=to_tensors(self.columns, device))

    def tempered(self, temperature: float, logits_BC: torch.Tensor) -> TemperedRows:
        """The soft targets at T, met with a student's logits on their device; none is made whole.

        Args:
            temperature: T, one that the codec is good for.
            logits_BC: The student's `[B, C]`.

        Raises:
            ValueError: Logits of other rows or classes than these targets.
            StoreError: The codec does not run on devices.
        """
        from softcask.pipeline.device_codecs.tempered.present import met

        if tuple(logits_BC.shape) != (len(self), self.num_classes):
            raise ValueError(
                f"soft targets of {len(self)} rows and {self.num_classes} classes met logits of shape "
                f"{list(logits_BC.shape)}"
            )
        targets = self.to(logits_BC.device)
        return met(self.codec, targets.columns, self.absent_classes, temperature, logits_BC)
