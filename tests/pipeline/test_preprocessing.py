from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.preprocessing import PreprocessingOptions, to_tensor
from softcask.storage_schemas.errors import ConfigError

RNG = np.random.default_rng(0)
BYTES_BHWC = RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def applied(inputs_B: NDArray[Any], **options: Any) -> NDArray[Any]:
    result = PreprocessingOptions(**options).apply(to_tensor(inputs_B))
    assert result.dtype == torch.float32 and result.is_contiguous()
    numbers: NDArray[Any] = result.numpy()
    return numbers


def test_nothing_asked_for_changes_only_the_dtype() -> None:
    np.testing.assert_array_equal(applied(BYTES_BHWC), BYTES_BHWC.astype(np.float32))


def test_images_are_scaled_and_normalised_channel_by_channel() -> None:
    got = applied(BYTES_BHWC, scale=1 / 255, mean=MEAN, std=STD, layout="hwc_to_chw")
    expected = (BYTES_BHWC.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    assert got.shape == (5, 3, 4, 6)
    np.testing.assert_allclose(got, expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "parts", [{"scale"}, {"mean"}, {"std"}, {"scale", "mean"}, {"mean", "std"}, {"scale", "std"}]
)
def test_each_step_stands_alone(parts: set[str]) -> None:
    options = {
        name: value for name, value in {"scale": 0.5, "mean": 3.0, "std": 4.0}.items() if name in parts
    }
    rows = BYTES_BHWC[..., 0]
    expected = (rows * options.get("scale", 1.0) - options.get("mean", 0.0)) / options.get("std", 1.0)
    np.testing.assert_allclose(applied(rows, **options), expected, rtol=1e-6)


def test_a_scale_of_zero_is_a_scale() -> None:
    np.testing.assert_array_equal(applied(BYTES_BHWC, scale=0.0), np.zeros(BYTES_BHWC.shape))


def test_flat_rows_take_a_shape_and_channels_are_its_first_axis() -> None:
    flat = BYTES_BHWC.reshape(5, -1)
    got = applied(flat, shape=(3, 4, 6), mean=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(got, flat.reshape(5, 3, 4, 6) - np.array([1, 2, 3]).reshape(3, 1, 1))
    got = applied(flat, shape=(4, 6, 3), layout="hwc_to_chw", mean=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(got, (BYTES_BHWC - np.array([1.0, 2, 3])).transpose(0, 3, 1, 2))


def test_images_may_be_flattened() -> None:
    np.testing.assert_array_equal(applied(BYTES_BHWC, shape=(72,)), BYTES_BHWC.reshape(5, 72))


def test_a_value_depends_neither_on_its_batch_nor_on_threads() -> None:
    rows = RNG.normal(size=(300, 997)).astype(np.float32)
    options = PreprocessingOptions(scale=0.3, mean=(0.1307,), std=(0.3081,))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = options.apply(to_tensor(rows))
        torch.set_num_threads(1)
        alone = torch.cat([options.apply(to_tensor(rows[index : index + 1])) for index in range(300)])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}, {"mean": 1.0}, {"shape": (6,)}, {"std": 0.5}])
def test_the_batch_is_not_shared_with_the_result(options: dict[str, Any]) -> None:
    rows = np.ones((2, 2, 3), dtype=np.float32)
    PreprocessingOptions(**options).apply(to_tensor(rows)).fill_(7)
    np.testing.assert_array_equal(rows, 1)


def test_another_dtype_is_rounded_to_once_at_the_end() -> None:
    options = PreprocessingOptions(scale=1 / 255, mean=(0.5,))
    got = options.apply(to_tensor(BYTES_BHWC), torch.bfloat16)
    assert torch.equal(got, options.apply(to_tensor(BYTES_BHWC)).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (BYTES_BHWC, {"shape": (1, 71)}, "rows of shape [4, 6, 3] do not fit shape [1, 71]"),
        (BYTES_BHWC[..., 0], {"layout": "hwc_to_chw"}, "takes rows [height, width, channels], found [4, 6]"),
        (BYTES_BHWC, {"mean": MEAN}, "3 numbers, but rows of shape [4, 6, 3] have 4 channels"),
        (BYTES_BHWC[:, 0, 0, 0], {"mean": MEAN}, "3 numbers, but rows of shape [] have 1 channels"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    inputs: NDArray[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        applied(inputs, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": 0}, "std must be above 0, found [0.0]"),
        ({"std": [0.2, -1, 0.3]}, "std must be above 0, found [0.2, -1.0, 0.3]"),
        ({"mean": [1, 2], "std": [1, 2, 3]}, "found 2 in mean and 3 in std"),
        ({"mean": []}, "found 0 in mean and 0 in std"),
        ({"mean": float("nan")}, "finite number"),
        ({"scale": float("inf")}, "finite number"),
        ({"shape": [1, 0]}, "shape must hold sizes of 1 and more, found [1, 0]"),
        ({"shape": []}, "shape must hold sizes of 1 and more, found []"),
        ({"shape": [1, 28, 28], "mean": [1, 2, 3]}, "rows of shape [1, 28, 28] have 1 channels"),
        ({"shape": [28, 28, 3], "std": [1, 2]}, "rows of shape [28, 28, 3] have 28 channels"),
        ({"shape": [784], "layout": "hwc_to_chw"}, "takes rows [height, width, channels], found [784]"),
        ({"layout": "chw"}, "'as_is' or 'hwc_to_chw'"),
        ({"scael": 1}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PreprocessingOptions.model_validate(options)
    assert message in str(caught.value)


def test_a_tensor_shares_writable_memory() -> None:
    rows = np.zeros((2, 3), dtype=np.float32)
    to_tensor(rows)[0, 0] = 5
    assert rows[0, 0] == 5


@pytest.mark.parametrize("dtype", ["uint8", ">f4", ">i2", "<f8"])
def test_arrays_that_torch_cannot_take_are_copied_without_a_warning(dtype: str) -> None:
    rows = np.arange(12).reshape(3, 4).astype(dtype)
    frozen = rows.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (rows, rows[::-1], rows[:, ::-2], frozen):
            np.testing.assert_array_equal(to_tensor(array).numpy(), array)


def test_validating_options_does_not_import_torch() -> None:
    script = (
        "import sys; from softcask.pipeline.preprocessing import PreprocessingOptions; "
        "PreprocessingOptions(mean=[1.0]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_rows_of_text_are_no_tensor_and_the_message_says_what_takes_them() -> None:
    with pytest.raises(ConfigError, match="rows are text.*a kind of teacher that tokenizes"):
        to_tensor(np.array(["a", "b"], dtype=np.dtypes.StringDType()))
