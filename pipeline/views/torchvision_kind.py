"""A step that is a transform of torchvision's (v2), or what else takes a tensor and draws as torch does."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.factories import FactoryTarget, call
from softcask.pipeline.views.base import StepOptions, row_by_row
from softcask.pipeline.views.callable_kind import source_digest
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import Layout, image_axes
from softcask.storage_schemas.errors import FactoryError

if TYPE_CHECKING:
    import torch

    Transform = Callable[[torch.Tensor], object]

_built: dict[tuple[str, str], Any] = {}
"""Transforms of this process, by what makes them: a batch is not to wait for that."""


class TorchvisionOptions(StepOptions):
    """`kind = "torchvision"`: a transform of one image, `[channels, height, width]`, a row at a time.

    What it draws from torch's generator is drawn from one of the row's own instead, so that nobody else's
    random numbers change; see `torch_random`.

    Attributes:
        transform: `module:factory` that makes it, such as `torchvision.transforms.v2:RandAugment`.
        kwargs: The factory's arguments.
        layout: Of rows with channels: they are turned for the transform, and back.
        code_version: Stated by the user; change it when the factory comes to give another transform.
    """

    kind: Literal["torchvision"] = "torchvision"
    imports_code: ClassVar[bool] = True
    transform: FactoryTarget
    kwargs: dict[str, Any] = Field(default_factory=dict)
    layout: Layout = "hwc"
    code_version: str = ""

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """See `StepOptions.apply`."""
        image_axes(inputs_B, self.layout, self.kind)
        augment, seeds = partial(self._of_one, self._transform()), (draws.words(1)[:, 0] >> 1).tolist()
        what = f"a view's transform {self.transform}"
        return row_by_row(augment, inputs_B, seeds, draws.sample_ids, what)

    def recorded(self) -> dict[str, Any]:
        """See `StepOptions.recorded`."""
        return {self.transform: source_digest(self.transform)}

    def _transform(self) -> Transform:
        key = self.transform, json.dumps(self.kwargs, sort_keys=True, default=str)
        if key not in _built:
            made = call(self.transform, self.kwargs, what="views")
            if not callable(made):
                raise FactoryError(
                    f"views: factory {self.transform!r} made a {type(made).__name__}, expected a transform: "
                    "something to call with a tensor"
                )
            _built[key] = made
        made_before: Transform = _built[key]
        return made_before

    def _of_one(self, transform: Transform, row: NDArray[Any], seed: int) -> NDArray[Any]:
        import torch

        from softcask.pipeline.views.torch_random import SeededTorch

        image = torch.from_numpy(np.array(row, dtype=row.dtype.newbyteorder("=")))
        if row.ndim == 2:
            image = image[None]
        elif self.layout == "hwc":
            image = image.permute(2, 0, 1)
        with torch.inference_mode(), SeededTorch(seed):
            made = transform(image)
        if not isinstance(made, torch.Tensor) or made.dim() != 3:
            found = list(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
            raise TypeError(f"it gave {found}, expected a tensor [channels, height, width]")
        turned = made.as_subclass(torch.Tensor).cpu()
        if row.ndim == 2 and len(turned) == 1:
            turned = turned[0]
        elif row.ndim == 2 or self.layout == "hwc":
            turned = turned.permute(1, 2, 0)
        return np.ascontiguousarray(turned.numpy())
