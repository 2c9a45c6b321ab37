"""Rules against the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.targets.rules.registry import RULES
from softcask.storage_schemas.errors import UnknownKind

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
WEIGHTS = np.array([0.5, 0.3, 0.2])


def members(offset: float = 0.0) -> NDArray[np.float32]:
    random = np.random.default_rng(5)
    return (random.normal(size=(3, 40, 10)) * 12 + offset).astype(np.float32)


def softmax64(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_mean_is_the_weighted_mean_of_tempered_probabilities(temperature: float) -> None:
    z = members()
    expected = np.einsum("m,mbc->bc", WEIGHTS, softmax64(z.astype(np.float64) / temperature))
    found = RULES.get("mean")(z, WEIGHTS.astype(np.float32), temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_geometric_mean_is_the_normalised_product_of_powers(temperature: float) -> None:
    z = members()
    product = np.prod(softmax64(z.astype(np.float64) / temperature) ** WEIGHTS[:, None, None], axis=0)
    expected = product / product.sum(-1, keepdims=True)
    found = RULES.get("geometric")(z, WEIGHTS.astype(np.float32), temperature)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "geometric"])
def test_a_constant_added_to_a_member_changes_nothing_even_when_it_is_large(rule: str) -> None:
    z = np.round(members() * 8) / 8  # exact in float32 next to the constant
    shifted = z + np.array([4096.0, -2048.0, 0.0], np.float32)[:, None, None]
    weights = WEIGHTS.astype(np.float32)
    np.testing.assert_array_equal(RULES.get(rule)(shifted, weights, 0.5), RULES.get(rule)(z, weights, 0.5))


def test_the_two_rules_differ_where_members_disagree() -> None:
    z = np.array([[[8.0, 0.0, 0.0]], [[0.0, 8.0, 0.0]]], np.float32)
    halves = np.array([0.5, 0.5], np.float32)
    arithmetic = RULES.get("mean")(z, halves, 1.0)[0]
    product = RULES.get("geometric")(z, halves, 1.0)[0]
    assert arithmetic[2] == pytest.approx(1 / (np.exp(8) + 2), rel=1e-5)
    assert product[2] == pytest.approx(1 / (2 * np.exp(4) + 1), rel=1e-5)


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(UnknownKind, match=r"unknown rule kind 'median'; known kinds: .*geometric.*mean"):
        RULES.get("median")
