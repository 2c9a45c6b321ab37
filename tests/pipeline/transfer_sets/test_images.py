from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from softcask.pipeline.transfer_sets.decoding import Unreadable
from softcask.pipeline.transfer_sets.images import ImageDecoder, ImageOptions

RANDOM_HWC = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


def decoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", save: Any = None, **options: Any) -> Any:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **(save or {}))
    decoder = ImageDecoder(ImageOptions(**options))
    result = decoder.decode(stream.getvalue())
    assert result.dtype == np.uint8 and decoder.shape in (None, result.shape)
    return result


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_usual_format_is_read(kind: str) -> None:
    grey_HW = np.full((6, 7), 128, np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(grey_HW, kind, options, mode="L"), grey_HW)


def test_other_formats_are_not_even_tried() -> None:
    with pytest.raises(Unreadable, match="cannot identify"):
        decoded(RANDOM_HWC, "ICO")


def test_modes_are_converted_as_stated() -> None:
    np.testing.assert_array_equal(decoded(RANDOM_HWC), RANDOM_HWC)
    grey_HW = RANDOM_HWC[:, :, 0]
    np.testing.assert_array_equal(decoded(grey_HW), np.stack([grey_HW] * 3, axis=-1))
    # ITU-R 601-2: L = 0.299 R + 0.587 G + 0.114 B
    luma_HW = RANDOM_HWC @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded(RANDOM_HWC, mode="L") - luma_HW).max() <= 0.51
    assert (decoded(RANDOM_HWC, mode="RGBA")[:, :, 3] == 255).all()
    paletted = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    paletted.putpalette([10, 20, 30] * 256)
    assert (decoded(paletted) == [10, 20, 30]).all()


def test_more_than_8_bits_are_refused_rather_than_cut_off() -> None:
    with pytest.raises(Unreadable, match="I;16, more than 8 bits a channel"):
        decoded(np.full((4, 4), 1000, np.uint16))


def test_crop_covers_the_size_and_cuts_the_rest_off_on_both_sides_alike() -> None:
    np.testing.assert_array_equal(decoded(RANDOM_HWC, height=30, width=30), RANDOM_HWC[:, 10:40])
    np.testing.assert_array_equal(decoded(RANDOM_HWC, height=30, width=50), RANDOM_HWC)
    bars_HW = np.repeat(np.repeat([[0, 10, 20, 30, 40]], 20, axis=0), 10, axis=1).astype(np.uint8)  # 20 x 50
    halved_HW = decoded(bars_HW, height=10, width=10, mode="L", filter="nearest")
    np.testing.assert_array_equal(halved_HW, np.repeat(np.repeat([[10, 20, 30]], 10, 0), [2, 5, 3], axis=1))


def test_a_shorter_side_above_the_size_keeps_the_centre_as_imagenet_models_are_judged() -> None:
    # torchvision: Resize(20), CenterCrop(10) of 30 x 50: resized to 20 x int(20 * 50 / 30) = 33, cut at
    # round((20 - 10) / 2) = 5 and round((33 - 10) / 2) = round(11.5) = 12
    image = Image.fromarray(RANDOM_HWC).resize((33, 20), Image.Resampling.BILINEAR)
    expected_HWC = np.asarray(image)[5:15, 12:22]
    np.testing.assert_array_equal(decoded(RANDOM_HWC, height=10, width=10, shorter_side=20), expected_HWC)


def test_pad_puts_black_around_and_stretch_scales_each_axis() -> None:
    white_HW = np.full((10, 20), 255, np.uint8)
    padded_HW = decoded(white_HW, height=20, width=20, fit="pad", mode="L")
    assert padded_HW.sum(axis=1).tolist() == [0] * 5 + [255 * 20] * 10 + [0] * 5
    stretched_HW = decoded(
        np.array([[0, 100], [200, 50]], np.uint8),
        height=2,
        width=4,
        fit="stretch",
        mode="L",
        filter="nearest",
    )
    assert stretched_HW.tolist() == [[0, 0, 100, 100], [200, 200, 50, 50]]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (7, 13, 3), (224, 224, 3)])
def test_whatever_size_an_image_has_the_row_is_of_the_size_stated(fit: str, shape: tuple[int, ...]) -> None:
    assert decoded(np.full(shape, 9, np.uint8), height=17, width=31, fit=fit).shape == (17, 31, 3)


def test_an_image_is_turned_as_its_exif_says_only_where_that_is_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    np.testing.assert_array_equal(decoded(RANDOM_HWC, "PNG", {"exif": exif}), RANDOM_HWC)
    np.testing.assert_array_equal(
        decoded(RANDOM_HWC, "PNG", {"exif": exif}, upright=True), RANDOM_HWC[::-1, ::-1]
    )


def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(Unreadable, match="9000 x 8000 pixels, expected at most"):
        decoded(Image.new("1", (9000, 8000)))


@pytest.mark.parametrize("place", range(8, 120, 7))
def test_no_damage_is_more_than_a_reason(place: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(RANDOM_HWC[:8, :8]).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[place] ^= 0xFF
    try:
        ImageDecoder(ImageOptions()).decode(bytes(data))
    except Unreadable as error:
        assert "0x" not in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 3}, "height and width belong together"),
        ({"shorter_side": 3}, "shorter_side goes with height, width"),
        ({"height": 3, "width": 3, "shorter_side": 2}, "does not cover height and width"),
        ({"height": 3, "width": 3, "shorter_side": 4, "fit": "pad"}, "goes with height, width and fit"),
        ({"mode": "CMYK"}, "'RGB', 'L' or 'RGBA'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageOptions(**options)
