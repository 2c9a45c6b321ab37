"""Where a row has height and width, and how images are resampled with the same bits everywhere."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import ConfigError

Layout = Literal["hwc", "chw"]
"""Of rows with channels; a row of two axes is [height, width] in either."""

_CHUNK_VALUES = 1 << 20


def image_axes(inputs_B: NDArray[Any], layout: Layout, kind: str) -> tuple[int, int]:
    """Axes of height and width in a batch `[B, *row]`.

    Raises:
        ConfigError: Rows are no images.
    """
    row = inputs_B.shape[1:]
    if inputs_B.dtype.kind not in "biuf" or len(row) not in (2, 3):
        found = "text" if inputs_B.dtype.kind == "T" else f"{inputs_B.dtype} {list(row)}"
        raise ConfigError(
            f"a view's step {kind!r} takes images, rows [height, width], [height, width, channels] or "
            f"(layout = "
            f'"chw") [channels, height, width]; these rows are {found}'
        )
    return (1, 2) if len(row) == 2 or layout == "hwc" else (2, 3)


def to_hwc(inputs_B: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """A view `[B, H, W, C]` of a batch of images."""
    if inputs_B.ndim == 3:
        return inputs_B[..., None]
    return inputs_B if layout == "hwc" else np.moveaxis(inputs_B, 1, -1)


def from_hwc(inputs_BHWC: NDArray[Any], row_axes: int, layout: Layout) -> NDArray[Any]:
    """The batch in its own layout, contiguous."""
    if row_axes == 2:
        return inputs_BHWC[..., 0]
    return np.ascontiguousarray(inputs_BHWC if layout == "hwc" else np.moveaxis(inputs_BHWC, -1, 1))


def resampled(
    inputs_BHWC: NDArray[Any], boxes_B4: NDArray[np.int64], height: int, width: int
) -> NDArray[Any]:
    """Boxes of images, brought to one size by bilinear interpolation, without smoothing before.

    Pixel centres lie at half numbers, and nothing outside a box is looked at. Computed in float32 (float64 of
    float64) with one operation after another, each rounded once, so that all processors give the same bits;
    whole numbers are rounded to the nearest, halves to even.

    Args:
        inputs_BHWC: Images.
        boxes_B4: Top, left, height and width of each box.
        height: Of the result.
        width: Of the result.
    """
    rows = max(1, _CHUNK_VALUES // max(1, inputs_BHWC[0].size))
    starts = range(0, len(inputs_BHWC), rows)
    parts = [_resampled(inputs_BHWC[s : s + rows], boxes_B4[s : s + rows], height, width) for s in starts]
    return np.concatenate(parts)


def _resampled(
    inputs_BHWC: NDArray[Any], boxes_B4: NDArray[np.int64], height: int, width: int
) -> NDArray[Any]:
    exact = np.float64 if inputs_BHWC.dtype == np.float64 else np.float32
    y0, y1, y_B = _sources(boxes_B4[:, 0], boxes_B4[:, 2], height)
    x0, x1, x_B = _sources(boxes_B4[:, 1], boxes_B4[:, 3], width)
    batch = np.arange(len(inputs_BHWC))[:, None]
    upper, lower = (inputs_BHWC[batch, y].astype(exact) for y in (y0, y1))
    lines = _blend(upper, lower, y_B.astype(exact)[:, :, None, None])
    batch, line = batch[:, :, None], np.arange(height)[None, :, None]
    left, right = (lines[batch, line, x[:, None, :]] for x in (x0, x1))
    return cast_back(_blend(left, right, x_B.astype(exact)[:, None, :, None]), inputs_BHWC.dtype)


def cast_back(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Floats, used up, as the dtype that they were computed from; whole numbers are rounded first."""
    return values.astype(dtype) if dtype.kind == "f" else np.rint(values, out=values).astype(dtype)


def _blend(first: NDArray[Any], second: NDArray[Any], share_of_second: NDArray[Any]) -> NDArray[Any]:
    second -= first
    second *= share_of_second
    second += first
    return second


def _sources(
    first_B: NDArray[np.int64], size_B: NDArray[np.int64], wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each place `[B, wanted]` of the result: two neighbours in the source, and the second's share."""
    centre_B = (np.arange(wanted) + 0.5) * (size_B[:, None] / wanted) - 0.5
    centre_B = np.clip(centre_B, 0, size_B[:, None] - 1)
    near_B = np.floor(centre_B).astype(np.int64)
    far_B = np.minimum(near_B + 1, size_B[:, None] - 1)
    return first_B[:, None] + near_B, first_B[:, None] + far_B, centre_B - near_B
