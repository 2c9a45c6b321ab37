"""A shift against all others that could be tried; what cannot be fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.student.bias import BiasCorrectionOptions, fit_shift
from softcask.storage_schemas.errors import ConfigError, StudentError

Array = NDArray[np.float64]
GRID = np.linspace(-12, 12, 4801)


def shifted(logits_NC: Array, classes: list[int], shift: float) -> Array:
    moved_NC = logits_NC.copy()
    moved_NC[:, classes] += shift
    return moved_NC


def errors(logits_NC: Array, labels_N: NDArray[np.int64], classes: list[int], shift: float) -> int:
    return int((shifted(logits_NC, classes, shift).argmax(axis=1) != labels_N).sum())


def rows(seed: int, classes: list[int], bias: float, rows: int = 60) -> tuple[Array, NDArray[np.int64]]:
    """Logits that know the label fairly well, of a student whose bias for some classes is off."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, 5, rows)
    labels_N[:2] = [classes[0], next(c for c in range(5) if c not in classes)]
    logits_NC = random.normal(0, 1.5, (rows, 5)) + 3 * np.eye(5)[labels_N]
    return shifted(logits_NC, classes, bias), labels_N


@given(
    seed=st.integers(0, 10_000),
    classes=st.sampled_from([[3], [0, 4], [1, 2, 3, 4]]),
    bias=st.floats(-6, 6),
)
def test_no_shift_of_a_fine_grid_makes_fewer_errors(seed: int, classes: list[int], bias: float) -> None:
    logits_NC, labels_N = rows(seed, classes, bias)
    found = errors(logits_NC, labels_N, classes, fit_shift(logits_NC, labels_N, classes))
    assert found <= min(errors(logits_NC, labels_N, classes, shift) for shift in GRID[::20])


def test_a_bias_that_is_off_is_taken_back() -> None:
    logits_NC, labels_N = rows(1, [3], -4.0, rows=20_000)
    without = errors(logits_NC, labels_N, [3], 4.0)
    assert errors(logits_NC, labels_N, [3], 0) > 1.5 * without
    for objective in ("errors", "likelihood"):
        shift = fit_shift(logits_NC, labels_N, [3], objective)  # type: ignore[arg-type]
        assert shift == pytest.approx(4.0, abs=0.4)
        assert errors(logits_NC, labels_N, [3], shift) <= 1.01 * without


def test_two_classes_that_are_all_a_student_saw_are_lowered_together() -> None:
    logits_NC, labels_N = rows(2, [2, 4], 5.0, rows=5000)
    assert fit_shift(logits_NC, labels_N, [2, 4]) == pytest.approx(-5.0, abs=0.5)


def test_where_no_shift_helps_it_is_none() -> None:
    labels_N = np.arange(40) % 5
    assert fit_shift(8 * np.eye(5)[labels_N], labels_N, [3]) == 0.0
    hopeless_NC = 8 * np.eye(5)[(labels_N + 1) % 5]
    hopeless_NC[:, 0] += 100 * (labels_N != 0)
    assert np.isfinite(fit_shift(hopeless_NC, labels_N, [3]))


@pytest.mark.parametrize("classes", [[3], [0, 4]])
def test_the_likeliest_shift_has_no_neighbour_that_is_likelier(classes: list[int]) -> None:
    logits_NC, labels_N = rows(3, classes, -2.5, rows=500)

    def likelihood(shift: float) -> float:
        moved_NC = shifted(logits_NC, classes, shift)
        log_sums_N = np.log(np.exp(moved_NC).sum(axis=1))
        return float((moved_NC[np.arange(500), labels_N] - log_sums_N).mean())

    found = fit_shift(logits_NC, labels_N, classes, "likelihood")
    assert likelihood(found) >= max(likelihood(shift) for shift in GRID) - 1e-12


@pytest.mark.parametrize("label", [1, 3])
def test_rows_of_one_side_alone_hold_nothing_back_and_are_refused(label: int) -> None:
    count = 4 if label == 3 else 0
    with pytest.raises(StudentError, match=rf"{count} of 4 held-out rows are of the classes \[3\]; expected"):
        fit_shift(np.zeros((4, 5)), np.full(4, label), [3])


HELD_OUT = {"kind": "arrays", "inputs": "held_out.npy"}


def test_classes_are_named_or_numbered() -> None:
    options = BiasCorrectionOptions.model_validate({"classes": ["cat", 0], "held_out": HELD_OUT})
    assert options.indices(["ant", "bee", "cat"]) == (0, 2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["dog"],
            "there is no class 'dog'; expected a name .'ant', 'bee', 'cat', .... or an index from 0 to 2",
        ),
        ([3], "there is no class 3"),
        ([0, "ant"], "name a class twice"),
        ([0, 1, 2], "name every class"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes: list[Any], message: str) -> None:
    options = BiasCorrectionOptions.model_validate({"classes": classes, "held_out": HELD_OUT})
    with pytest.raises(ConfigError, match=message):
        options.indices(["ant", "bee", "cat"])


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValidationError, match="classes"):
        BiasCorrectionOptions.model_validate({"classes": [], "held_out": HELD_OUT})
