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
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec

CODEC = Dense8()
LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 140)), elements=st.floats(-1e5, 1e5, width=32)
)
NEAR_TIES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 140)),
    elements=st.floats(-(2.0**-20), 2.0**-20, width=32),
)


class TestDense8(CodecContract):
    """The contract, with a last block that is not full."""

    classes = 150

    @pytest.fixture
    def codec(self) -> Codec:
        return CODEC


def by_hand(columns: dict[str, NDArray[Any]], row: int, place: int) -> float:
    """A logit as any reader of plain arrays would have it, in Python's numbers."""
    top, step = (float(columns[name][row, place // 64]) for name in ("tops", "steps"))
    return top - step * int(columns["codes"][row, place])


def kl_B(true_BC: NDArray[Any], other_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """KL(p_T || q_T) in nats, float64."""
    log_p_BC, log_q_BC = (
        np.float64(z_BC) / temperature
        - np.logaddexp.reduce(np.float64(z_BC) / temperature, axis=1, keepdims=True)
        for z_BC in (true_BC, other_BC)
    )
    return (np.exp(log_p_BC) * (log_p_BC - log_q_BC)).sum(axis=1)


def test_a_thousand_classes_take_1068_bytes() -> None:
    assert sum(column.row_bytes for column in CODEC.columns(1000)) == 1000 + 2 * 16 * 2 + 4 == 1068


@given(logits_BC=st.one_of(LOGITS, NEAR_TIES))
def test_every_logit_comes_back_within_half_a_step_of_its_block(logits_BC: NDArray[np.float32]) -> None:
    columns = CODEC.encode(logits_BC)
    decoded = CODEC.decode(columns)
    shifted_BC = decoded.shifted_BC
    exact_BC = np.maximum(logits_BC.astype(np.float64) - logits_BC.max(axis=1, keepdims=True), -65504)
    assert (decoded.row_max_B == logits_BC.max(axis=1)).all()
    for (row, place), value in np.ndenumerate(shifted_BC):
        block_B = exact_BC[row, place // 64 * 64 :][:64]
        # 255 steps span the block, its top in half precision raised or its range's end lowered by one unit.
        unit = max(2.0**-24, -block_B.max() * 2.0**-10)
        step = max((np.ptp(block_B) + unit) / 255 * (1 + 2.0**-10) + 2.0**-24, 2.0**-23)
        nudged = exact_BC[row, : place + 1].max() < 0  # it may be put a step below the maximum that follows
        allowed = step * (1 if nudged else 0.5) + abs(exact_BC[row, place]) * 2.0**-22
        assert value == np.float32(by_hand(columns, row, place))
        assert abs(value - exact_BC[row, place]) <= allowed + 2.0**-24


@given(logits_BC=st.one_of(LOGITS, NEAR_TIES))
def test_the_first_of_the_largest_comes_back_exactly_and_stays_the_first(
    logits_BC: NDArray[np.float32],
) -> None:
    shifted_BC = CODEC.decode(CODEC.encode(logits_BC)).shifted_BC
    assert (shifted_BC.max(axis=1) == 0).all()
    assert (shifted_BC.argmax(axis=1) == logits_BC.argmax(axis=1)).all()


def classifier_BC(spread: float, margin: float) -> NDArray[np.float32]:
    """A Gaussian crowd of 1000 classes and one that stands out."""
    rng = np.random.default_rng([int(10 * spread), int(margin)])
    logits_BC = rng.normal(0, spread, (400, 1000))
    logits_BC[np.arange(400), rng.integers(0, 1000, 400)] += rng.uniform(0, margin, 400)
    return logits_BC.astype(np.float32)


@pytest.mark.parametrize(("spread", "margin"), [(1.0, 5.0), (2.0, 15.0), (3.0, 0.0), (4.0, 30.0)])
@pytest.mark.parametrize(
    ("temperature", "most"), [(0.5, 6e-5), (1.0, 5e-5), (2.0, 3e-5), (4.0, 1.5e-5), (20.0, 1e-6)]
)
def test_the_decoded_distribution_is_within_what_is_claimed(
    spread: float, margin: float, temperature: float, most: float
) -> None:
    logits_BC = classifier_BC(spread, margin)
    divergence_B = kl_B(logits_BC, CODEC.decode(CODEC.encode(logits_BC)).shifted_BC, temperature)
    assert divergence_B.mean() <= most
    assert divergence_B.min() >= -1e-12


def test_a_block_far_below_the_maximum_keeps_its_own_fine_steps() -> None:
    logits_BC = np.zeros((1, 192), dtype=np.float32)
    logits_BC[0, 64:128] = -40 + np.linspace(-0.05, 0.05, 64)
    logits_BC[0, 128:] = -1e6
    shifted_BC = CODEC.decode(CODEC.encode(logits_BC)).shifted_BC
    assert (shifted_BC[0, :64] == 0).all()
    assert np.abs(shifted_BC - logits_BC)[0, 64:128].max() <= 0.5 * (0.1 + 2.0**-5) / 255
    assert (shifted_BC[0, 128:] == -65504).all()


@pytest.mark.parametrize("height", [0.0, -3.25, 1e30])
def test_a_constant_row_stays_constant(height: float) -> None:
    decoded = CODEC.decode(CODEC.encode(np.full((2, 70), height, dtype=np.float32)))
    assert (decoded.shifted_BC == 0).all()
    assert decoded.row_max_B.tolist() == [np.float32(height)] * 2


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("tops", bad) for bad in (np.nan, -np.inf, 0.5, -3.0)),
        *(("steps", bad) for bad in (np.nan, np.inf, -0.5, 0.0)),
        ("row_max", np.inf),
        ("codes", 3),
    ],
)
def test_what_no_encoder_writes_is_damage(name: str, bad: float) -> None:
    columns = CODEC.encode(np.zeros((3, 4), dtype=np.float32))
    columns[name][1] = bad
    with pytest.raises(CorruptObject, match="dense8"):
        CODEC.decode(columns)


def test_a_spec_that_is_not_its_own_is_refused() -> None:
    for spec in (
        CodecSpec(name="dense8", configuration={"block": 3}),
        CodecSpec(name="dense8", container="parquet"),
    ):
        with pytest.raises(StoreError, match="dense8"):
            codec_from(spec)
