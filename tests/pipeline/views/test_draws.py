"""Random numbers by counter, against published vectors and the distributions' own moments."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tests.pipeline.views.contract import draws

from softcask.pipeline.views.draws import philox, row_keys

# Random123's known answers for philox4x32-10: counter, key, output (tests/kat_vectors of its distribution).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_it_is_philox(counter: str, key: str, output: str) -> None:
    low, high = words(key)
    found = philox(
        [np.array([word], np.uint64) for word in words(counter)], np.array([high << 32 | low], np.uint64)
    )
    assert found[:, 0].tolist() == words(output)


def test_a_row_is_known_by_the_hash_of_seed_and_id() -> None:
    expected = [int.from_bytes(hashlib.sha256(f"7 {name}".encode()).digest()[:8], "little") for name in "ab"]
    assert row_keys(["a", "b"], 7).tolist() == expected
    assert len(row_keys([], 7)) == 0


def test_calls_go_on_where_the_last_one_ended_and_rows_do_not_share() -> None:
    ids = [f"row-{row}" for row in range(500)]
    some = draws(ids)
    values = np.concatenate([some.uniform(3), some.uniform(4)], axis=1)
    assert len(np.unique(values)) == values.size
    again = draws(ids)
    np.testing.assert_array_equal(np.concatenate([again.uniform(3), again.uniform(4)], axis=1), values)


def test_uniform_numbers_are_uniform() -> None:
    values = draws([f"row-{row}" for row in range(4000)]).uniform(5).ravel()
    assert values.min() >= 0 and values.max() < 1
    # Kolmogorov and Smirnov at one in a million: sup |F - F_n| < 2.7 / sqrt(n).
    ordered = np.sort(values)
    assert np.abs(ordered - np.arange(len(ordered)) / len(ordered)).max() < 2.7 / np.sqrt(len(ordered))


def test_whole_numbers_below_a_limit_are_equally_likely() -> None:
    found = draws([f"row-{row}" for row in range(6000)]).below(6)
    counts = np.bincount(found, minlength=6)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 35.9  # chi-square of 5 degrees of freedom, one in a million


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    found = np.sort(draws([f"row-{row}" for row in range(20_000)]).symmetric_beta(alpha))
    expected = np.sort(np.random.default_rng(3).beta(alpha, alpha, 200_000))
    # Two samples, against numpy's own generator, at one in a million or so.
    places = np.linspace(0.01, 0.99, 99)
    distance = np.searchsorted(found, places) / len(found) - np.searchsorted(expected, places) / len(expected)
    assert np.abs(distance).max() < 2.7 * np.sqrt(1 / len(found) + 1 / len(expected))
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert (found * 2**16 == np.round(found * 2**16)).all()


def test_generators_are_the_rows_own() -> None:
    first = [generator.random() for generator in draws(["a", "b"]).generators()]
    assert first[0] != first[1]
    assert [generator.random() for generator in draws(["b", "a"]).generators()] == first[::-1]
    assert [generator.random() for generator in draws(["a", "b"], view=2).generators()] != first
