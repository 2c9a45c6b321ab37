"""From a batch as the transfer set keeps it (bytes, say) to what a model takes: shape, layout, scale, mean.

Teachers and students share it. Config files are validated where torch may not be installed, so torch is
imported only when a batch is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, FiniteFloat, model_validator

from softcask.pipeline.parts import Options
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


PerChannel = Annotated[tuple[FiniteFloat, ...], BeforeValidator(_as_list)]
"""One number for all channels, or one each."""


class PreprocessingOptions(Options):
    """What is done to each row before the model: `(row * scale - mean) / std`.

    Attributes:
        scale: Factor, such as 1/255 = 0.00392156862745098 for bytes.
        mean: Subtracted after scaling; one number, or one a channel.
        std: Divided by; one number, or one a channel.
        shape: Shape `[...]` that a row is viewed as, first of all; None: as the transfer set has it.
        layout: `hwc_to_chw` moves the last axis of a row to the front, after `shape` and before `mean` and
            `std`, whose channels are a row's first axis then.
    """

    scale: FiniteFloat | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    shape: tuple[int, ...] | None = None
    layout: Literal["as_is", "hwc_to_chw"] = "as_is"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.std is not None and any(value <= 0 for value in self.std):
            raise ConfigError(f"std must be above 0, found {list(self.std)}")
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise ConfigError(f"shape must hold sizes of 1 and more, found {list(self.shape)}")
        if len(lengths := {n for n in map(len, self._per_channel()) if n != 1}) > 1 or 0 in lengths:
            raise ConfigError(
                "mean and std must each be one number or one a channel, "
                f"found {len(self.mean or ())} in mean and {len(self.std or ())} in std"
            )
        if self.shape is not None:
            self._check_row(self.shape)
        return self

    def apply(self, inputs_B: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The batch as the model takes it.

        Computed in float32 with one multiplication and one addition an element, each rounded once, so that a
        value does not depend on its place in the batch or on the number of threads.

        Args:
            inputs_B: `[B, *row]`, any real dtype; left untouched.
            dtype: Of the result; None is float32.

        Returns:
            `[B, *row']`, contiguous, on the device of `inputs_B` and never sharing memory with it.

        Raises:
            ConfigError: Rows do not fit `shape`, `layout` or the number of channels.
        """
        import torch

        batch = self._arranged(inputs_B)
        factor, offset = self._factors(batch)
        result = batch.to(torch.float32, copy=True)
        if factor is not None:
            result.mul_(factor)
        if offset is not None:
            result.add_(offset)
        return result.to(dtype or torch.float32).contiguous()

    def _arranged(self, inputs_B: torch.Tensor) -> torch.Tensor:
        row = tuple(inputs_B.shape[1:])
        if self.shape is not None:
            if math.prod(row) != math.prod(self.shape):
                raise ConfigError(
                    f"preprocessing: rows of shape {list(row)} do not fit shape {list(self.shape)}"
                )
            inputs_B = inputs_B.reshape(len(inputs_B), *self.shape)
        else:
            self._check_row(row)
        return inputs_B.movedim(-1, 1) if self.layout == "hwc_to_chw" else inputs_B

    def _factors(self, batch: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        import torch

        def channels(values: NDArray[np.float64]) -> torch.Tensor:
            shape = (1, -1) + (1,) * (batch.dim() - 2) if len(values) > 1 else (1,)
            return torch.tensor(values, dtype=torch.float32, device=batch.device).reshape(shape)

        std = np.array(self.std or (1.0,))
        scaled = self.scale is not None or self.std is not None
        factor = channels((1.0 if self.scale is None else self.scale) / std) if scaled else None
        return factor, channels(-np.array(self.mean) / std) if self.mean is not None else None

    def _per_channel(self) -> list[Sequence[float]]:
        return [values for values in (self.mean, self.std) if values is not None]

    def _check_row(self, row: Sequence[int]) -> None:
        if self.layout == "hwc_to_chw" and len(row) != 3:
            raise ConfigError(f"layout 'hwc_to_chw' takes rows [height, width, channels], found {list(row)}")
        widest = max(map(len, self._per_channel()), default=1)
        channels = (row[-1] if self.layout == "hwc_to_chw" else row[0]) if row else 1
        if widest not in (1, channels):
            raise ConfigError(
                f"mean or std has {widest} numbers, but rows of shape {list(row)} have {channels} channels"
            )


def to_tensor(inputs_B: NDArray[Any]) -> torch.Tensor:
    """A batch as a tensor on the host, without a copy where torch can take the memory as it is.

    Torch takes no foreign byte order and no negative stride, and warns of read-only arrays: those are copied.

    Raises:
        ConfigError: Rows are text.
    """
    import torch

    if inputs_B.dtype.kind == "T":
        raise ConfigError(
            "the transfer set's rows are text, and this model takes numbers: name a kind of teacher that "
            "tokenizes, or another column as input"
        )
    if inputs_B.flags.writeable and inputs_B.dtype.isnative and min(inputs_B.strides, default=0) >= 0:
        return torch.from_numpy(inputs_B)
    return torch.from_numpy(np.array(inputs_B, dtype=inputs_B.dtype.newbyteorder("="), order="C"))
