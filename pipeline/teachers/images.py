"""Rows that are images, made ready for a model on its device: channels, size, scale, mean.

The numbers come from the model (what it was evaluated with), unless a config states others. torch is imported
only where there is a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import FiniteFloat, PositiveInt, model_validator

from softcask.pipeline.parts import Options
from softcask.pipeline.preprocessing import PerChannel, PreprocessingOptions, to_tensor
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Layout = Literal["auto", "hwc", "chw"]


class ImageOptions(Options):
    """What to do otherwise than the model says; None: as it says.

    Attributes:
        size: Height and width that the model takes.
        resize: Length of the shorter edge before the centre is cropped, or height and width.
        interpolation: How rows of another size are resized, always antialiased.
        mean: Subtracted after scaling, one number or one a channel.
        std: Divided by, one number or one a channel.
        scale: Factor before that; None: 1/255, for bytes alone.
        layout: Where a row's channels are; `auto` tells where only one end of its shape can be channels.
    """

    size: tuple[PositiveInt, PositiveInt] | None = None
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    interpolation: Interpolation | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    scale: FiniteFloat | None = None
    layout: Layout = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        PreprocessingOptions(mean=self.mean, std=self.std)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparation:
    """What a model's images go through; see `softcask.pipeline.teachers.preparation.Preparation`.

    Rows of the size that the model takes are neither resized nor cropped; others are resized (in float32,
    antialiased, bytes rounded to bytes) and cropped around their centre. From PIL, which rounds between width
    and height, a byte is off by at most 1 (bilinear) or 2 (bicubic); nearest is equal but for ties.

    Attributes:
        channels: That the model takes; grey rows are repeated for three.
        size: Height and width that it takes.
        resize: The shorter edge before cropping, or height and width; None: not resized here.
        interpolation: Of resizing; None: not resized here.
        mean: One number a channel.
        std: One number a channel.
        scale: Before that; None: 1/255, for bytes alone.
        layout: Of rows.
    """

    channels: int
    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: Interpolation | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float | None = None
    layout: Layout = "auto"

    def changed(self, options: ImageOptions) -> ImagePreparation:
        """With what a config states in place of what the model says.

        Raises:
            ConfigError: The centre that is cropped would be larger than what it is cropped from, or mean and
                std are not those of `channels` channels.
        """
        stated = options.model_dump(exclude_none=True)
        if "size" in stated and "resize" not in stated and self.resize is not None:
            stated["resize"] = stated["size"]  # the model's own was meant for its own size
        result = ImagePreparation(**{**{name: getattr(self, name) for name in self.__slots__}, **stated})
        edges = (result.resize,) * 2 if isinstance(result.resize, int) else result.resize
        if edges is not None and any(edge < crop for edge, crop in zip(edges, result.size, strict=True)):
            raise ConfigError(f"images: resize {result.resize} is smaller than size {list(result.size)}")
        for name in ("mean", "std"):
            if len(values := getattr(result, name)) not in (1, self.channels):
                raise ConfigError(f"images: {name} has {len(values)} numbers, for {self.channels} channels")
        return result

    def on_host(self, inputs_B: NDArray[Any]) -> torch.Tensor:
        """The batch as it is, once its rows are known to be images for this model."""
        batch_B = to_tensor(inputs_B)
        if self.scale is None and inputs_B.dtype.name != "uint8":
            raise ConfigError(
                f"rows are {inputs_B.dtype}, expected bytes (uint8). Say what to multiply them by, before "
                "mean and std, to bring them to 0..1: images = { scale = 1.0 } if they are there already"
            )
        channel_axis(inputs_B.shape[1:], self.channels, self.layout)
        return batch_B

    def on_device(self, staged_B: Any) -> torch.Tensor:
        """Images `[B, channels, *size]`, float32."""
        images_BCHW = self._fitted(channels_first(staged_B, self.channels, self.layout))
        factor = 1 / 255 if self.scale is None else self.scale
        return PreprocessingOptions(scale=factor, mean=self.mean, std=self.std).apply(images_BCHW)

    def _fitted(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = images_BCHW.shape[2:]
        if (height, width) == self.size:
            return images_BCHW
        if self.resize is None or self.interpolation is None:
            raise ConfigError(
                f"images are {height} x {width}, the model takes {self.size[0]} x {self.size[1]}, and how it "
                "resizes is not known here: prepare rows of that size, or say images.resize and "
                "images.interpolation"
            )
        resized = _resized(images_BCHW, _edges(height, width, self.resize), self.interpolation)
        top, left = (
            round((have - want) / 2) for have, want in zip(resized.shape[2:], self.size, strict=True)
        )
        return resized[:, :, top : top + self.size[0], left : left + self.size[1]]


def channel_axis(row: Sequence[int], channels: int, layout: Layout) -> int | None:
    """Where in a row's shape its channels are; None for grey rows without such an axis.

    Raises:
        ConfigError: Rows of this shape are no images for a model of so many channels, or it could be both.
    """
    if len(row) == 2 and layout == "auto":
        return None
    ends = {"hwc": (-1,), "chw": (0,), "auto": (-1, 0)}[layout]
    found = [end for end in ends if len(row) == 3 and row[end] in (1, channels)]
    if len(found) != 1:
        problem = "can be read both ways, say images.layout" if found else "are no images for this model"
        raise ConfigError(
            f"rows of shape {list(row)} {problem}; expected [height, width, {channels}] (layout 'hwc'), "
            f"[{channels}, height, width] ('chw'), or [height, width] or one channel for grey ones"
        )
    return found[0]


def channels_first(batch_B: torch.Tensor, channels: int, layout: Layout) -> torch.Tensor:
    """Images `[B, channels, height, width]`, a view; grey ones are repeated."""
    axis = channel_axis(batch_B.shape[1:], channels, layout)
    images_BCHW = batch_B.unsqueeze(1) if axis is None else batch_B
    images_BCHW = images_BCHW.movedim(-1, 1) if axis == -1 else images_BCHW
    return images_BCHW.expand(-1, channels, -1, -1)


def _edges(height: int, width: int, resize: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width after resizing; the longer edge is cut to a whole number, as torchvision does."""
    if not isinstance(resize, int):
        return resize
    longer = int(resize * max(height, width) / min(height, width))
    return (resize, longer) if height <= width else (longer, resize)


def _resized(images_BCHW: torch.Tensor, edges: tuple[int, int], interpolation: Interpolation) -> torch.Tensor:
    import torch
    from torch.nn.functional import interpolate

    if tuple(images_BCHW.shape[2:]) == edges:
        return images_BCHW
    smooth = interpolation != "nearest"
    resized = interpolate(
        images_BCHW.to(torch.float32),
        size=edges,
        mode=interpolation if smooth else "nearest-exact",  # which is PIL's
        align_corners=False if smooth else None,
        antialias=smooth,
    )
    # Bicubic overshoots. Models were evaluated on bytes again, as PIL and torchvision give.
    return resized.round_().clamp_(0, 255) if images_BCHW.dtype == torch.uint8 else resized
