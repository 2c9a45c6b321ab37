"""The stable softmax against the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.softmax import log_softmax, softmax

LOGITS = np.random.default_rng(2).normal(size=(50, 12)) * 10


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 4, 8, 20])
def test_softmax_equals_the_float64_formula(temperature: float) -> None:
    powers = np.exp(LOGITS / temperature)
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(softmax(LOGITS, temperature), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(log_softmax(LOGITS, temperature), np.log(expected), rtol=2e-6, atol=1e-6)


def test_logits_beyond_the_range_of_exp_give_finite_rows_of_sum_one() -> None:
    extreme = np.array([[3e4, 0.0, -3e4], [-3e4, -3e4, -3e4]])
    np.testing.assert_allclose(softmax(extreme, 0.5), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], atol=1e-7)
    np.testing.assert_allclose(log_softmax(extreme)[0], [0, -3e4, -6e4])


def test_the_logits_given_are_left_as_they_were() -> None:
    logits = LOGITS.astype(np.float32)
    before = logits.copy()
    softmax(logits, 4)
    log_softmax(logits, 4)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_finite_and_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature is"):
        softmax(LOGITS, temperature)
