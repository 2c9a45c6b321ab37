"""From the rows of a transfer set to what a module is called with, in two steps: on the host, on the device.

The first needs no device, so it may run while the batch before is computed; tensors are moved in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from softcask.pipeline.preprocessing import PreprocessingOptions, to_tensor

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class Preparation(Protocol):
    """What is done to rows before the module; the same bits for a row whatever its place in a batch."""

    def on_host(self, inputs_B: NDArray[Any]) -> torch.Tensor | Mapping[str, torch.Tensor]:
        """Rows `[B, ...]` as tensors on the host; `inputs_B` is left untouched, but may be shared.

        Raises:
            ConfigError: Rows that this teacher does not take.
        """

    def on_device(
        self, staged_B: torch.Tensor | Mapping[str, torch.Tensor]
    ) -> torch.Tensor | Mapping[str, torch.Tensor]:
        """What the module is called with, from what `on_host` gave, wherever that stands now.

        Never memory of `staged_B`, which the module might write to.

        Raises:
            ConfigError: Rows that this teacher does not take.
        """


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rows of numbers, scaled and shaped as a config says."""

    options: PreprocessingOptions

    def on_host(self, inputs_B: NDArray[Any]) -> torch.Tensor:
        """The batch as it is."""
        return to_tensor(inputs_B)

    def on_device(self, staged_B: Any) -> torch.Tensor:
        """`(row * scale - mean) / std`, and the like."""
        return self.options.apply(staged_B)
