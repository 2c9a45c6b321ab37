"""The steps that `[[views.steps]]` can name; a new one is a file here, a line below and a contract test."""

from __future__ import annotations

from softcask.pipeline.parts import Registry
from softcask.pipeline.views.base import StepOptions

STEPS: Registry[type[StepOptions]] = Registry(
    part="view's step",
    group="softcask.views",
    builtin={
        "callable": "softcask.pipeline.views.callable_kind:CallableOptions",
        "cutmix": "softcask.pipeline.views.cutmix:CutMixOptions",
        "flip": "softcask.pipeline.views.flip:FlipOptions",
        "mixup": "softcask.pipeline.views.mixup:MixupOptions",
        "pixel_shift": "softcask.pipeline.views.pixel_shift:PixelShiftOptions",
        "random_resized_crop": "softcask.pipeline.views.random_resized_crop:RandomResizedCropOptions",
        "torchvision": "softcask.pipeline.views.torchvision_kind:TorchvisionOptions",
    },
)
