from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tests.storage_schemas.codecs.contract import CodecContract

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.registry import codec_from, codec_named
from softcask.storage_schemas.errors import CorruptObject, StoreError, UnknownKind
from softcask.storage_schemas.manifest import CodecSpec

CODEC = Dense16()
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 9)),
    elements=st.floats(-1e5, 1e5, width=32),
)


class TestDense16(CodecContract):
    """The contract."""

    @pytest.fixture
    def codec(self) -> Codec:
        return CODEC


def test_a_row_takes_two_bytes_a_class_and_four_for_its_maximum() -> None:
    assert sum(column.row_bytes for column in CODEC.columns(7)) == 2 * 7 + 4


def decoded(logits_BC: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    back = CODEC.decode(CODEC.encode(logits_BC))
    assert back.shifted_BC.dtype == back.row_max_B.dtype == np.float32
    return back.shifted_BC.astype(np.float64), back.row_max_B.astype(np.float64)


def log_softmax_BC(logits_BC: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC / temperature
    scaled_BC = scaled_BC - scaled_BC.max(axis=1, keepdims=True)
    return scaled_BC - np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))


def kl_B(
    true_BC: NDArray[np.float64], other_BC: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """KL(p_T || q_T) in nats, float64."""
    log_p_BC, log_q_BC = log_softmax_BC(true_BC, temperature), log_softmax_BC(other_BC, temperature)
    return (np.exp(log_p_BC) * (log_p_BC - log_q_BC)).sum(axis=1)


def realistic_BC(classes: int, spread: float, margin: float, rows: int = 400) -> NDArray[np.float32]:
    """A Gaussian crowd of classes and one that stands out, as classifiers give."""
    rng = np.random.default_rng([classes, int(10 * spread), int(margin)])
    logits_BC = rng.normal(0, spread, (rows, classes))
    logits_BC[np.arange(rows), rng.integers(0, classes, rows)] += rng.uniform(0, margin, rows)
    return logits_BC.astype(np.float32)


@given(logits_BC=LOGITS)
def test_every_logit_comes_back_within_half_precision_below_its_rows_maximum(
    logits_BC: NDArray[np.float32],
) -> None:
    shifted_BC, row_max_B = decoded(logits_BC)
    exact_BC = logits_BC.astype(np.float64)
    assert (row_max_B == exact_BC.max(axis=1)).all()
    below_BC = exact_BC - row_max_B[:, None]
    kept = below_BC >= -65504
    # Half precision: 11 bits where it is normal, steps of 2^-24 below that; and float32's own rounding.
    allowed_BC = np.maximum(np.abs(below_BC) * (2.0**-11 + 2.0**-23), 2.0**-25)
    assert (np.abs(shifted_BC - below_BC)[kept] <= allowed_BC[kept]).all()
    assert (shifted_BC[~kept] == -65504).all()
    assert (shifted_BC.max(axis=1) == 0).all()


@given(logits_BC=LOGITS)
def test_the_largest_class_stays_the_largest_and_none_overtakes_another(
    logits_BC: NDArray[np.float32],
) -> None:
    shifted_BC, _ = decoded(logits_BC)
    order_BC = np.argsort(logits_BC, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(shifted_BC, order_BC, axis=1), axis=1) >= 0).all()


@given(logits_BC=LOGITS, data=st.data())
def test_rows_do_not_depend_on_one_another(logits_BC: NDArray[np.float32], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(logits_BC) - 1))
    together, alone = CODEC.encode(logits_BC), CODEC.encode(logits_BC[row : row + 1])
    for name, values in together.items():
        assert values[row : row + 1].tobytes() == alone[name].tobytes()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
@pytest.mark.parametrize(("spread", "margin"), [(1.0, 5.0), (2.0, 15.0), (4.0, 30.0)])
def test_the_decoded_distribution_is_within_a_millionth_of_a_nat(
    temperature: float, classes: int, spread: float, margin: float
) -> None:
    logits_BC = realistic_BC(classes, spread, margin)
    shifted_BC, row_max_B = decoded(logits_BC)
    for back_BC in (shifted_BC, shifted_BC + row_max_B[:, None]):
        divergence_B = kl_B(logits_BC.astype(np.float64), back_BC, temperature)
        assert divergence_B.max() <= 1e-6
        assert divergence_B.min() >= -1e-12


def test_even_the_worst_thousand_logits_stay_within_what_is_claimed_of_them() -> None:
    # All but one class at one depth just over a power of two, where half precision is coarsest, and rounded
    # the same way; half of the probability is theirs when depth / T = ln(999).
    depths = np.float32([d * (1 + place * 2.0**-11) for d in (4, 8, 16, 32) for place in range(1, 64, 2)])
    logits_BC = np.zeros((len(depths), 1000), dtype=np.float32)
    logits_BC[:, 1:] = -depths[:, None]
    shifted_BC, _ = decoded(logits_BC)
    worst = max(
        kl_B(logits_BC[row : row + 1].astype(np.float64), shifted_BC[row : row + 1], float(depth) / 6.9)[0]
        for row, depth in enumerate(depths)
    )
    assert 1.0e-6 < worst <= 1.5e-6


@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("height", [0.0, -3.25, 1e30])
def test_a_constant_row_stays_constant(classes: int, height: float) -> None:
    shifted_BC, row_max_B = decoded(np.full((1, classes), height, dtype=np.float32))
    assert (shifted_BC == 0).all()
    assert row_max_B[0] == np.float32(height)


def test_a_range_beyond_half_precision_is_cut_and_changes_no_probability() -> None:
    largest = np.finfo(np.float32).max
    logits_BC = np.array([[0, -1, -65504, -65505, -1e9], [largest, -largest, 0, 1, 2]], dtype=np.float32)
    shifted_BC, _ = decoded(logits_BC)
    assert shifted_BC[0].tolist() == [0, -1, -65504, -65504, -65504]
    assert shifted_BC[1].tolist() == [0, -65504, -65504, -65504, -65504]
    exact_BC = logits_BC.astype(np.float64)
    for temperature in TEMPERATURES:
        divergence_B = kl_B(exact_BC - exact_BC.max(axis=1, keepdims=True), shifted_BC, temperature)
        assert np.abs(divergence_B).max() <= 1e-12


def test_a_codec_that_is_unknown_or_configured_otherwise_is_refused() -> None:
    with pytest.raises(UnknownKind, match="'dense3'.*dense16"):
        codec_named("dense3")
    for spec in (
        CodecSpec(name="dense16", configuration={"bits": 3}),
        CodecSpec(name="dense16", container="parquet"),
    ):
        with pytest.raises(StoreError, match="dense16"):
            codec_from(spec)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0, -1.0])
def test_what_no_encoder_writes_is_damage(bad: float) -> None:
    columns = CODEC.encode(np.zeros((3, 4), dtype=np.float32))
    columns["logits"][1] = bad
    with pytest.raises(CorruptObject, match="dense16"):
        CODEC.decode(columns)
    columns = CODEC.encode(np.zeros((3, 4), dtype=np.float32))
    columns["row_max"][2] = np.nan
    with pytest.raises(CorruptObject, match="dense16"):
        CODEC.decode(columns)
