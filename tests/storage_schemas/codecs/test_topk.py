from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tests.storage_schemas.codecs.contract import CodecContract

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.codecs.topk import Settings, TopK, interpolation
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec

GRID = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)


def topk(classes: int, head: int, temperatures: tuple[float, ...] = GRID) -> TopK:
    return TopK(settings=Settings(num_classes=classes, head_size=head, temperatures=temperatures))


class TestTopK(CodecContract):
    """The contract, with a head and a tail."""

    @pytest.fixture
    def codec(self) -> Codec:
        return topk(self.classes, 5)


class TestTopKWithoutTail(CodecContract):
    """The contract, all classes in the head."""

    classes = 6

    @pytest.fixture
    def codec(self) -> Codec:
        return topk(6, 6, (1.0,))


def softmax_BC(logits_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64) / temperature
    exp_BC = np.exp(scaled_BC - scaled_BC.max(axis=1, keepdims=True))
    return exp_BC / exp_BC.sum(axis=1, keepdims=True)


def word_BC(classes: int = 5000, rows: int = 50) -> NDArray[np.float32]:
    """Rows as language models give them: Zipf's law and noise."""
    rng = np.random.default_rng(classes)
    base_BC = -np.log(rng.permuted(np.tile(np.arange(1, classes + 1), (rows, 1)), axis=1))
    return (base_BC + rng.normal(0, 1.5, (rows, classes))).astype(np.float32)


def test_a_row_of_64_classes_takes_268_bytes_and_more_where_there_are_more_than_65536_classes() -> None:
    assert sum(column.row_bytes for column in topk(50_000, 64).columns(50_000)) == 64 * 4 + 12
    assert sum(column.row_bytes for column in topk(65_536, 64).columns(65_536)) == 64 * 4 + 12
    assert sum(column.row_bytes for column in topk(65_537, 64).columns(65_537)) == 64 * 6 + 12


def test_the_last_of_65536_classes_fits_its_column() -> None:
    logits_BC = np.zeros((1, 1 << 16), dtype=np.float32)
    logits_BC[0, -1] = 3
    assert topk(1 << 16, 1).encode(logits_BC)["classes"].tolist() == [[65535]]


@given(
    logits_BC=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.just(12)), elements=st.integers(-4, 4).map(np.float32)
    ),
    head=st.integers(1, 12),
)
def test_the_head_is_the_largest_classes_in_rising_order_and_of_equals_the_lower(
    logits_BC: NDArray[np.float32], head: int
) -> None:
    columns = topk(12, head).encode(logits_BC)
    for row, logits_C in enumerate(logits_BC.tolist()):
        expected = sorted(sorted(range(12), key=lambda place: (-logits_C[place], place))[:head])
        assert columns["classes"][row].tolist() == expected
        assert columns["logits"][row].tolist() == [logits_C[place] - max(logits_C) for place in expected]


@pytest.mark.parametrize("temperature", GRID)
def test_at_the_grid_the_tails_mass_is_exact_and_the_heads_classes_are_within_half_precision(
    temperature: float,
) -> None:
    logits_BC = word_BC()
    codec = topk(5000, 40)
    columns = codec.encode(logits_BC)
    p_BC = softmax_BC(logits_BC, temperature)
    q_BC = softmax_BC(codec.decode(columns, temperature).shifted_BC, temperature)
    classes_BK = columns["classes"].astype(np.int64)
    head_p_B, head_q_B = (np.take_along_axis(x_BC, classes_BK, axis=1).sum(axis=1) for x_BC in (p_BC, q_BC))
    assert (1 - head_p_B > 1e-4).all()
    # Log odds of the tail: float16 rounds by 2^-11 of them, and they are below 9 here.
    odds_p_B, odds_q_B = (np.log((1 - head_B) / head_B) for head_B in (head_p_B, head_q_B))
    assert np.abs(odds_p_B - odds_q_B).max() <= 9 * 2.0**-11
    within_p_BK, within_q_BK = (
        np.take_along_axis(x_BC, classes_BK, axis=1) / head_B[:, None]
        for x_BC, head_B in ((p_BC, head_p_B), (q_BC, head_q_B))
    )
    assert np.abs(within_q_BK / within_p_BK - 1).max() <= 2 * 8 * 2.0**-11 / temperature
    tail_BC = q_BC.copy()
    np.put_along_axis(tail_BC, classes_BK, np.nan, axis=1)
    assert (np.nanmin(tail_BC, axis=1) == np.nanmax(tail_BC, axis=1)).all()


@pytest.mark.parametrize("temperature", [0.6, 0.85, 1.4, 3.0, 5.6, 14.0])
def test_between_the_grids_temperatures_the_tails_mass_is_within_a_thousandth_of_a_nat(
    temperature: float,
) -> None:
    logits_BC = word_BC()
    codec = topk(5000, 40)
    columns = codec.encode(logits_BC)
    heads = [
        np.take_along_axis(softmax_BC(x_BC, temperature), columns["classes"].astype(np.int64), axis=1).sum(1)
        for x_BC in (logits_BC, codec.decode(columns, temperature).shifted_BC)
    ]
    p_B, q_B = heads
    divergence_B = p_B * np.log(p_B / q_B) + (1 - p_B) * np.log((1 - p_B) / (1 - q_B))
    assert 0 < divergence_B.max() <= 1e-3


def test_interpolation_is_linear_in_the_logarithm_of_the_temperature() -> None:
    assert interpolation(GRID, 4.0) == ((3, 1.0),)
    assert interpolation(GRID, 30.0) == ((5, 1.0),)
    assert interpolation(GRID, 0.1) == ((0, 1.0),)
    (low, weight), (high, other) = interpolation(GRID, 2.0**0.25)
    assert (low, high) == (1, 2)
    assert (weight, other) == pytest.approx((0.75, 0.25))
    for temperature in GRID:
        assert len(interpolation(GRID, temperature)) == 1


@pytest.mark.parametrize("height", [1.0, 1e5])
def test_a_row_of_huge_range_and_a_constant_one_stay_finite_and_normalised(height: float) -> None:
    logits_BC = np.float32([[height, *[-height] * 9], [height] * 10, [height, height, *[-height] * 8]])
    codec = topk(10, 2)
    for temperature in (*GRID, 3.0):
        decoded_BC = codec.decode(codec.encode(logits_BC), temperature).shifted_BC
        assert np.isfinite(decoded_BC).all()
        expected_BC = softmax_BC(logits_BC, temperature)
        np.testing.assert_allclose(softmax_BC(decoded_BC, temperature), expected_BC, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("classes", [[3, 3]]),
        ("classes", [[4, 3]]),
        ("classes", [[3, 10]]),
        ("logits", [[-1.0, -2.0]]),
        ("logits", [[0.0, 1.0]]),
        ("logits", [[0.0, np.nan]]),
        ("logits", [[0.0, -np.inf]]),
        ("tail", [[np.nan] * 6]),
        ("tail", [[np.inf] * 6]),
    ],
)
def test_what_no_encoder_writes_is_damage(name: str, bad: list[list[float]]) -> None:
    codec = topk(10, 2)
    columns = codec.encode(np.float32([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]))
    columns[name] = np.array(bad).astype(columns[name].dtype)
    with pytest.raises(CorruptObject, match="topk"):
        codec.decode(columns)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 1},
        {"num_classes": 1 << 40},
        {"head_size": 0},
        {"head_size": 11},
        {"head_size": True},
        {"temperatures": []},
        {"temperatures": [1.0, 1.0]},
        {"temperatures": [2.0, 1.0]},
        {"temperatures": [0.0, 1.0]},
        {"temperatures": ["1"]},
        {"temperatures": list(range(1, 200))},
    ],
)
def test_a_configuration_that_cannot_be_is_refused_whole(change: dict[str, Any]) -> None:
    good = {"num_classes": 10, "head_size": 2, "temperatures": [1.0, 2.0]}
    assert codec_from(CodecSpec(name="topk", configuration=good)).temperatures == (1.0, 2.0)
    with pytest.raises(StoreError, match=f"topk.*{next(iter(change))}"):
        codec_from(CodecSpec(name="topk", configuration=good | change))


def test_another_number_of_classes_than_it_was_made_for_is_refused() -> None:
    with pytest.raises(StoreError, match="10 classes.*11"):
        topk(10, 2).columns(11)
