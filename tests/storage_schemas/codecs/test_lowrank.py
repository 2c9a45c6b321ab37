from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.storage_schemas.codecs.contract import CodecContract
from tests.storage_schemas.codecs.lowrank_codecs import lowrank

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.lowrank import bits
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.lowrank.digits import MOST, Digits
from softcask.storage_schemas.errors import CorruptObject, StoreError


class TestLowrank(CodecContract):
    """The contract, as zstd packs it."""

    @pytest.fixture
    def codec(self) -> Codec:
        return lowrank(self.classes)


class TestLowrankByRow(CodecContract):
    """The contract, as ANS codes it."""

    @pytest.fixture
    def codec(self) -> Codec:
        pytest.importorskip("constriction")
        return lowrank(self.classes, coder="ans")


class TestLowrankOfRankZero(CodecContract):
    """The contract, of a head over the mean profile alone."""

    @pytest.fixture
    def codec(self) -> Codec:
        return lowrank(self.classes, rank=0, head=36)


class TestLowrankOfManyClasses(CodecContract):
    """The contract, with a head of one and rows that fill more than a block."""

    classes = 3000

    @pytest.fixture
    def codec(self) -> Codec:
        return lowrank(self.classes, head=1, rank=24, bits=2)

    @pytest.fixture
    def logits_BC(self) -> NDArray[np.float32]:
        rows = np.random.default_rng(8).normal(0, 2, (70, self.classes))
        return rows.astype(np.float32)


def log_softmax(logits_BC: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64) / temperature
    scaled_BC -= scaled_BC.max(axis=1, keepdims=True)
    return scaled_BC - np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))


def on_the_basis(codec: Lowrank, rows: int) -> NDArray[np.float32]:
    """Logits that are the mean profile and coefficients that every limit has room for."""
    assert codec.basis is not None
    generator = np.random.default_rng(4)
    most_R = codec.basis.limits_R * codec.settings.step
    coefficients_BR = generator.uniform(-most_R, most_R, (rows, len(most_R)))
    return (codec.basis.mean_C + coefficients_BR @ codec.basis.basis_CR.T).astype(np.float32)


@pytest.mark.parametrize("coder", ["zstd", "ans"])
def test_a_row_on_the_basis_comes_back_within_half_a_step_of_each_coefficient(coder: str) -> None:
    codec = lowrank(200, step=0.01, limits=(600, 300, 200, 100), head=3, rank=6, coder=coder)
    assert codec.basis is not None
    logits_BC = on_the_basis(codec, 20)
    decoded_BC = codec.decode(codec.encode(logits_BC)).shifted_BC.astype(np.float64)
    error_BC = decoded_BC - logits_BC
    error_BC -= error_BC.mean(axis=1, keepdims=True)
    # Directions are orthonormal under even weights: the mean square of an error is the sum over coefficients.
    # 6 coefficients off by at most half a step, the head by what 7 bits leave of it.
    assert np.sqrt((error_BC**2).mean(axis=1)).max() <= 0.5 * 0.01 * np.sqrt(6) + 1e-3
    assert np.sqrt((error_BC**2).mean()) > 0.01 / np.sqrt(12)


def test_the_head_is_exact_to_its_bits_and_the_mass_outside_it_is_the_teachers() -> None:
    codec = lowrank(200, head=8, bits=12, rank=0)
    logits_BC = np.random.default_rng(6).normal(0, 3, (10, 200)).astype(np.float32)
    columns = codec.encode(logits_BC)
    decoded_BC = log_softmax(codec.decode(columns).shifted_BC, 1.0)
    exact_BC = log_softmax(logits_BC, 1.0)
    head_BK = codec.sparse(columns).head.classes_BK
    for row, classes_K in enumerate(head_BK):
        np.testing.assert_allclose(decoded_BC[row, classes_K], exact_BC[row, classes_K], atol=0.01)
        mass, expected = (
            np.delete(np.exp(rows_BC[row]), classes_K).sum() for rows_BC in (decoded_BC, exact_BC)
        )
        assert mass == pytest.approx(expected, rel=0.02)


def test_the_head_holds_the_classes_that_the_profile_has_most_wrong_and_always_the_largest() -> None:
    codec = lowrank(60, head=3, rank=0)
    assert codec.basis is not None
    mean_C = codec.basis.mean_C.astype(np.float64)
    largest = int(mean_C.argmax())
    first, second = (place for place in np.argsort(-mean_C)[[20, 30]])
    logits_C = mean_C.copy()
    logits_C[[first, second]] = mean_C.max() - 0.5
    head_K = codec.sparse(codec.encode(logits_C[None].astype(np.float32))).head
    assert head_K.classes_BK[0].tolist() == sorted([largest, int(first), int(second)])
    assert head_K.classes_BK[0, head_K.top_B[0]] == largest


def test_a_close_second_is_not_rounded_above_the_largest() -> None:
    codec = lowrank(50, head=4, bits=2)
    logits_BC = np.random.default_rng(7).normal(0, 1, (200, 50)).astype(np.float32)
    top_B = logits_BC.argmax(axis=1)
    second_B = (top_B + 7) % 50
    logits_BC[np.arange(200), second_B] = np.nextafter(logits_BC.max(axis=1), np.float32(-np.inf))
    decoded_BC = codec.decode(codec.encode(logits_BC)).shifted_BC
    assert decoded_BC.argmax(axis=1).tolist() == logits_BC.argmax(axis=1).tolist()
    assert (np.sort(decoded_BC, axis=1)[:, -2] < 0).all()


def test_coefficients_beyond_their_limits_are_cut_and_the_head_takes_what_it_can() -> None:
    codec = lowrank(80, limits=(1,), head=4)
    logits_BC = np.random.default_rng(9).normal(0, 30, (5, 80)).astype(np.float32)
    columns = codec.encode(logits_BC)
    assert (np.abs(codec.sparse(columns).coefficients_BR) <= 0.25).all()
    decoded_BC = codec.decode(columns).shifted_BC
    assert decoded_BC.argmax(axis=1).tolist() == logits_BC.argmax(axis=1).tolist()


def test_a_code_of_one_stands_for_what_calibration_found() -> None:
    codec = lowrank(80, rank=1, limits=(3,))
    assert codec.basis is not None
    steps_B = np.array([-2, -1, 0, 1, 2])
    logits_BC = codec.basis.mean_C + steps_B[:, None] * 0.25 * codec.basis.basis_CR[:, 0]
    found_BR = codec.sparse(codec.encode(logits_BC.astype(np.float32))).coefficients_BR
    np.testing.assert_allclose(found_BR[:, 0], [-0.5, -0.225, 0, 0.225, 0.5], rtol=1e-6)


def test_logits_of_a_huge_range_stay_finite() -> None:
    largest = np.finfo(np.float32).max
    logits_BC = np.zeros((2, 37), dtype=np.float32)
    logits_BC[0, 3], logits_BC[0, 4], logits_BC[1] = largest, -largest, np.linspace(-1e6, 1e6, 37)
    decoded_BC = lowrank(37).decode(lowrank(37).encode(logits_BC)).shifted_BC
    assert np.isfinite(decoded_BC).all()
    assert decoded_BC.argmax(axis=1).tolist() == [3, 36]


@given(data=st.data())
def test_sets_take_elias_fanos_bits_and_come_back(data: st.DataObject) -> None:
    universe = data.draw(st.integers(2, 5000))
    size = data.draw(st.integers(1, min(universe, 40)))
    numbers = st.lists(st.integers(0, universe - 1), min_size=size, max_size=size, unique=True)
    sets_BK = np.array([sorted(data.draw(numbers)) for _ in range(3)])
    packed = bits.from_sets(sets_BK, universe)
    low = int(np.floor(np.log2(universe / size)))
    assert packed.shape == (3, size * low + size + (universe >> low) + 1)
    found = bits.to_sets(packed, size, universe)
    assert found is not None
    assert found.tolist() == sets_BK.tolist()


def test_bits_that_are_no_set_are_told() -> None:
    packed = bits.from_sets(np.array([[3, 5, 900]]), 1000)
    twice = bits.from_sets(np.array([[3, 3, 900]]), 1000)
    beyond = bits.from_sets(np.array([[3, 5, 1001]]), 1000)
    assert bits.to_sets(np.zeros_like(packed), 3, 1000) is None
    assert bits.to_sets(np.ones_like(packed), 3, 1000) is None
    assert bits.to_sets(twice, 3, 1000) is None
    assert bits.to_sets(beyond, 3, 1000) is None


@given(data=st.data())
def test_values_within_their_limits_come_back_from_their_digits(data: st.DataObject) -> None:
    limits_R = np.array(data.draw(st.lists(st.integers(1, MOST), max_size=12)), dtype=np.int64)
    rows = [data.draw(st.tuples(*(st.integers(-limit, limit) for limit in limits_R.tolist()))) for _ in "12"]
    values_BR = np.array(rows, dtype=np.int64).reshape(2, len(limits_R))
    digits = Digits.within(limits_R)
    packed_BG = digits.pack(values_BR)
    assert packed_BG.shape == (2, digits.bytes)
    assert digits.unpack(packed_BG).tolist() == values_BR.tolist()


def test_values_that_are_nearly_always_zero_share_bytes() -> None:
    assert Digits.within(np.full(10, 1)).bytes == 2  # five of three values: 243 of 256
    assert Digits.within(np.array([127])).bytes == 1
    assert Digits.within(np.array([128])).bytes == 2
    assert Digits.within(np.full(2, 2047)).bytes == 3  # the low 16 of one and of the other in one byte


def test_bytes_beyond_the_digits_are_refused() -> None:
    with pytest.raises(CorruptObject, match="coefficients"):
        Digits.within(np.full(5, 1)).unpack(np.array([[243]], dtype=np.uint8))
    with pytest.raises(CorruptObject, match="coefficients"):
        Digits.within(np.array([130])).unpack(np.array([[16, 15]], dtype=np.uint8))  # 271 of 261


def test_strings_shorter_or_longer_than_their_row_are_refused() -> None:
    pytest.importorskip("constriction")
    codec = lowrank(40, coder="ans", rank=24)
    columns = codec.encode(np.random.default_rng(1).normal(0, 2, (1, 40)).astype(np.float32))
    text = columns["coefficients"][0]
    for changed in (text[:-1], text + b"\x01\x00\x00\x00", text + b"\x00\x00\x00\x00"):
        with pytest.raises(CorruptObject, match="row 0"):
            codec.decode({**columns, "coefficients": np.array([changed, None], dtype=object)[:1]})


def test_without_constriction_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(StoreError, match="package constriction"):
        lowrank(40, coder="ans").encode(np.zeros((1, 40), dtype=np.float32))


def test_without_its_arrays_it_neither_encodes_nor_decodes() -> None:
    whole = lowrank(40)
    bare = Lowrank.from_spec(whole.to_spec())
    logits_BC = np.zeros((1, 40), dtype=np.float32)
    for call in (lambda: bare.encode(logits_BC), lambda: bare.decode(whole.encode(logits_BC)), bare.arrays):
        with pytest.raises(StoreError, match="without its arrays"):
            call()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", lambda array: array[:-1]),
        ("mean", lambda array: np.full_like(array, np.nan)),
        ("mean", lambda array: np.full_like(array, 1e30)),
        ("basis", lambda array: array.astype(np.float32)),
        ("basis", lambda array: np.full_like(array, np.inf)),
        ("deviations", lambda array: -array),
        ("ones", lambda array: array * 0),
        ("limits", lambda array: array * 0),
        ("limits", lambda array: np.full_like(array, MOST + 1)),
        ("limits", lambda array: np.full_like(array, MOST)),
        ("weights", lambda array: -array),
        ("weights", lambda array: array * 2),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, change: Any) -> None:
    codec = lowrank(40)
    arrays = dict(codec.arrays())
    assert Lowrank.from_spec(codec.to_spec(), arrays) == codec
    arrays[name] = change(arrays[name])
    with pytest.raises(StoreError, match="lowrank"):
        Lowrank.from_spec(codec.to_spec(), arrays)
    with pytest.raises(StoreError, match="lowrank"):
        Lowrank.from_spec(codec.to_spec(), {key: value for key, value in arrays.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"head_size": 40},
        {"head_size": 0},
        {"rank": -1},
        {"step": 0},
        {"step": float("nan")},
        {"coder": "brotli"},
        {"temperatures": []},
        {"num_classes": 1 << 30},
        {"coefficient_bytes": 1},
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    codec = lowrank(40)
    spec = codec.to_spec()
    with pytest.raises(StoreError, match="lowrank"):
        Lowrank.from_spec(
            spec.model_copy(update={"configuration": spec.configuration | change}), codec.arrays()
        )


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(StoreError, match="fitted to 40 classes"):
        lowrank(40).encode(np.zeros((1, 41), dtype=np.float32))
