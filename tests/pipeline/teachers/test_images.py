from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from softcask.pipeline.teachers.images import ImageOptions, ImagePreparation
from softcask.storage_schemas.errors import ConfigError

RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN = ImagePreparation(channels=3, size=(24, 24), resize=28, interpolation="bilinear", mean=MEAN, std=STD)


def photos(*shape: int) -> NDArray[np.uint8]:
    """Smooth pictures with a little noise, whose resizing is neither trivial nor chaos."""
    coarse = RNG.integers(0, 256, (shape[0], 5, 5, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each).resize(shape[:0:-1], Image.Resampling.BICUBIC) for each in coarse]
    noise = RNG.integers(-8, 9, (*shape, 3))
    return np.clip(np.stack([np.array(each) for each in pictures]) + noise, 0, 255).astype(np.uint8)


def prepared(preparation: ImagePreparation, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
    images = preparation.on_device(preparation.on_host(inputs_B))
    assert images.is_contiguous()
    numbers: NDArray[np.float32] = images.numpy()
    assert numbers.dtype == np.float32
    return numbers


def as_bytes(numbers_BCHW: NDArray[np.float32]) -> NDArray[np.float64]:
    per_channel = (1, 3, 1, 1)
    mean, std = np.reshape(MEAN, per_channel), np.reshape(STD, per_channel)
    return (numbers_BCHW.astype(np.float64) * std + mean) * 255


def by_pil(image_HWC: NDArray[np.uint8], short: int, crop: int, how: Image.Resampling) -> NDArray[np.uint8]:
    height, width = image_HWC.shape[:2]
    scale = short / min(height, width)
    size = (int(width * scale + 1e-9), int(height * scale + 1e-9))
    resized = Image.fromarray(image_HWC).resize(size, how)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return np.array(resized.crop((left, top, left + crop, top + crop)))


def test_rows_of_the_models_size_are_only_scaled() -> None:
    rows = photos(3, 24, 24)
    expected = (rows.transpose(0, 3, 1, 2) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(prepared(OWN, rows), expected, atol=1e-6)


def test_both_layouts_give_the_same_bits() -> None:
    rows = photos(3, 40, 32)
    np.testing.assert_array_equal(prepared(OWN, rows), prepared(OWN, rows.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize(("height", "width"), [(64, 50), (37, 61), (28, 28), (20, 20), (9, 30)])
@pytest.mark.parametrize(("how", "most"), [("bilinear", 1), ("bicubic", 2), ("nearest", 0)])
def test_resizing_and_cropping_are_within_a_level_or_two_of_pils(
    height: int, width: int, how: Any, most: int
) -> None:
    rows = photos(4, height, width)
    got = as_bytes(prepared(OWN.changed(ImageOptions(interpolation=how)), rows))
    mode = Image.Resampling[how.upper()]
    expected = np.stack([by_pil(row, 28, 24, mode) for row in rows]).transpose(0, 3, 1, 2)
    off = np.abs(got - expected)
    if how == "nearest" and (height, width) == (9, 30):  # one column lies between two pixels
        off = np.delete(off, np.flatnonzero(off.max(axis=(0, 1, 2)) > 0.5), axis=3)
        assert off.shape[3] == 23
    assert off.max() < most + 0.01 and off.mean() < 0.25


def test_height_and_width_may_be_stated_apart_without_keeping_the_ratio() -> None:
    rows = photos(2, 30, 50)
    got = as_bytes(prepared(OWN.changed(ImageOptions(resize=(24, 24))), rows))
    expected = [Image.fromarray(row).resize((24, 24), Image.Resampling.BILINEAR) for row in rows]
    np.testing.assert_allclose(got, np.stack(expected).transpose(0, 3, 1, 2), atol=1.01)


def test_grey_rows_are_repeated_for_three_channels() -> None:
    grey = photos(3, 30, 30)[..., 0]
    expected = prepared(OWN, np.repeat(grey[..., None], 3, axis=-1))
    for rows in (grey, grey[..., None], grey[:, None]):
        np.testing.assert_array_equal(prepared(OWN, rows), expected)


def test_a_row_does_not_depend_on_its_place_in_the_batch() -> None:
    rows = photos(7, 31, 45)
    together = prepared(OWN, rows)
    for place in (0, 3, 6):
        np.testing.assert_array_equal(prepared(OWN, rows[place : place + 1])[0], together[place])


def test_numbers_that_are_no_bytes_need_a_scale_and_are_not_rounded() -> None:
    rows = RNG.random((2, 24, 24, 3), dtype=np.float32)
    with pytest.raises(ConfigError, match=r"rows are float32, expected bytes.*scale = 1\.0"):
        prepared(OWN, rows)
    unit = OWN.changed(ImageOptions(scale=1.0, mean=0.0, std=1.0))
    np.testing.assert_allclose(prepared(unit, rows), rows.transpose(0, 3, 1, 2), atol=1e-7)
    resized = prepared(unit, RNG.random((1, 50, 50, 3), dtype=np.float32))
    assert len(np.unique(resized)) > 1000


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((24, 24, 4), "are no images for this model"),
        ((5,), "are no images"),
        ((1, 24, 24, 3), "are no images"),
        ((3, 24, 3), "can be read both ways, say images.layout"),
        ((24, 24, 2), r"expected \[height, width, 3\]"),
    ],
)
def test_rows_that_are_no_images_are_refused_with_what_is_expected(shape: tuple[int, ...], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        OWN.on_host(np.zeros((2, *shape), dtype=np.uint8))


def test_a_stated_layout_settles_what_could_be_both() -> None:
    rows = RNG.integers(0, 256, (1, 3, 24, 3), dtype=np.uint8)
    hwc, chw = (
        OWN.changed(ImageOptions(layout=layout, size=(3, 24) if layout == "hwc" else (24, 3)))
        for layout in ("hwc", "chw")
    )
    np.testing.assert_allclose(as_bytes(prepared(hwc, rows)), rows.transpose(0, 3, 1, 2), atol=1e-3)
    np.testing.assert_allclose(as_bytes(prepared(chw, rows)), rows, atol=1e-3)


def test_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="rows are text"):
        OWN.on_host(np.array(["a", "b"], dtype=np.dtypes.StringDType()))


def test_a_way_of_resizing_that_is_not_known_is_only_missed_where_it_is_needed() -> None:
    fixed = ImagePreparation(channels=3, size=(24, 24), resize=None, interpolation=None, mean=MEAN, std=STD)
    assert prepared(fixed, photos(1, 24, 24)).shape == (1, 3, 24, 24)
    with pytest.raises(ConfigError, match="images are 30 x 24, the model takes 24 x 24.*images.resize"):
        prepared(fixed, photos(1, 30, 24))
    stated = fixed.changed(ImageOptions(resize=24, interpolation="bicubic"))
    assert prepared(stated, photos(1, 30, 24)).shape == (1, 3, 24, 24)


def test_a_stated_size_is_what_rows_are_resized_to_unless_that_is_stated_too() -> None:
    assert OWN.changed(ImageOptions(size=(32, 16))).resize == (32, 16)
    assert OWN.changed(ImageOptions(size=(32, 16), resize=40)).resize == 40


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({"resize": 20}, "resize 20 is smaller than size"),
        ({"mean": [0.1, 0.2]}, "mean has 2 numbers, for 3 channels"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(stated: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        OWN.changed(ImageOptions.model_validate(stated))


@pytest.mark.parametrize("stated", [{"std": 0}, {"size": [0, 3]}, {"interpolation": "lanczos"}, {"means": 1}])
def test_what_makes_no_sense_for_any_model_is_refused(stated: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageOptions.model_validate(stated)
