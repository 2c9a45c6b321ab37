"""Encoded images as rows: decoded by Pillow, and brought to one size and mode by what a config states.

The same file gives the same numbers wherever the same Pillow decodes it. Decoders of JPEG differ between
versions in the last bit of some pixels, so a description names them, and rows are looked at again after an
upgrade; `softcask prepare` keeps the decoded rows and is free of that.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from softcask.pipeline.parts import Options
from softcask.pipeline.transfer_sets.decoding import Unreadable
from softcask.storage_schemas.errors import ConfigError, TransferSetError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_DEEP = ("I", "F")  # what modes of more than 8 bits a channel begin with
_MOST_PIXELS = 1 << 26  # below what Pillow itself warns of


class ImageOptions(Options):
    """How an image becomes a row, uint8 `[height, width, channels]`, or `[height, width]` in mode `L`.

    Attributes:
        height: Pixels; without height and width, images stay as they are and must be of one size.
        width: Pixels.
        mode: `RGB`, `L` (grey) or `RGBA`; what an image has is converted.
        fit: `crop` scales an image until it covers height and width, and cuts the rest off on both sides
            alike; `pad` scales it until it fits in, and puts black around it; `stretch` scales each axis.
        shorter_side: Under `crop`, scales the shorter side to this in place of the least that covers: 256
            with height and width 224 is what most ImageNet models were judged with.
        filter: How pixels are interpolated; Pillow's, which smooth when they make an image smaller.
        upright: Whether to turn an image as its EXIF says.
    """

    height: int | None = Field(default=None, ge=1, le=1 << 14)
    width: int | None = Field(default=None, ge=1, le=1 << 14)
    mode: Literal["RGB", "L", "RGBA"] = "RGB"
    fit: Literal["crop", "pad", "stretch"] = "crop"
    shorter_side: int | None = Field(default=None, ge=1, le=1 << 14)
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    upright: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ConfigError("height and width belong together: set both or none")
        if self.shorter_side is None:
            return self
        if self.height is None or self.width is None or self.fit != "crop":
            raise ConfigError('shorter_side goes with height, width and fit = "crop"')
        if self.shorter_side < max(self.height, self.width):
            raise ConfigError(f"shorter_side = {self.shorter_side} does not cover height and width")
        return self

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on: these options, and the libraries that decode.

        Raises:
            TransferSetError: Pillow is not installed.
        """
        _pillow()
        from PIL import __version__, features

        versions = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "libtiff")}
        return self.model_dump() | {"pillow": __version__, **versions}


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Bytes of a file to pixels.

    Attributes:
        options: What they are brought to.
    """

    options: ImageOptions
    advice = "set image.height and image.width to bring all to one size"
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of a row, None where the images decide."""
        if self.options.height is None or self.options.width is None:
            return None
        return self._shape(self.options.height, self.options.width)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Pixels, uint8.

        Raises:
            Unreadable: No image, a damaged one, or one that would lose what the mode does not hold.
        """
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_pixels(image)
                return np.asarray(_sized(_converted(image, self.options), self.options))
        except Unreadable:
            raise
        except Exception as error:  # of a damaged file, Pillow raises nearly anything
            raise Unreadable(
                f"cannot be decoded: {type(error).__name__}: {_without_address(error)}"
            ) from error

    def _shape(self, height: int, width: int) -> tuple[int, ...]:
        channels = _CHANNELS[self.options.mode]
        return (height, width) if channels == 1 else (height, width, channels)


def image_decoder(options: ImageOptions) -> ImageDecoder:
    """A decoder, once it is known that there can be one.

    Raises:
        TransferSetError: Pillow is not installed.
    """
    _pillow()
    return ImageDecoder(options)


def _pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise TransferSetError("to decode images takes Pillow: pip install 'softcask[images]'") from error


def _check_pixels(image: Image) -> None:
    if image.width * image.height > _MOST_PIXELS:
        raise Unreadable(f"{image.width} x {image.height} pixels, expected at most {_MOST_PIXELS}")


def _converted(image: Image, options: ImageOptions) -> Image:
    from PIL import ImageOps

    if image.mode.startswith(_DEEP):
        raise Unreadable(
            f"mode {image.mode}, more than 8 bits a channel, of which {options.mode} would cut off what is "
            "above 255; save it with 8 bits, or its numbers as an array"
        )
    turned = ImageOps.exif_transpose(image) if options.upright else image
    return turned.convert(options.mode)


def _sized(image: Image, options: ImageOptions) -> Image:
    if options.height is None or options.width is None:
        return image
    from PIL import Image as Pillow

    size, resample = (options.width, options.height), Pillow.Resampling[options.filter.upper()]
    if options.fit == "stretch":
        return image.resize(size, resample)
    if options.fit == "pad":
        inner = image.resize(_inside(image.size, size), resample)
        padded = Pillow.new(image.mode, size)
        padded.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
        return padded
    outer = image.resize(_covering(image.size, size, options.shorter_side), resample)
    left, top = round((outer.width - size[0]) / 2), round((outer.height - size[1]) / 2)
    return outer.crop((left, top, left + size[0], top + size[1]))


def _covering(found: tuple[int, int], size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """Width and height of an image scaled to cover `size`; rounded down as torchvision's Resize does."""
    (width, height), (least_width, least_height) = found, size
    if shorter_side is not None:
        least_width = least_height = shorter_side
    if width * least_height >= height * least_width:
        return max(least_width, width * least_height // height), least_height
    return least_width, max(least_height, height * least_width // width)


def _inside(found: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    (width, height), (most_width, most_height) = found, size
    if width * most_height >= height * most_width:
        return most_width, max(1, height * most_width // width)
    return max(1, width * most_height // height), most_height


def _without_address(error: Exception) -> str:
    """The message without the address of the buffer, which differs at every reading."""
    return str(error).partition(" <_io.BytesIO")[0]
