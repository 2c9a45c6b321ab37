"""The rivals that are re-implemented keep what their publications say, in the bytes that are counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judging import Judge, kl_of
from rivals import megatron, renormalised, sampling, tinyvit
from rivals.base import Kept, Rows, largest_within

CLASSES = 3_000


@pytest.fixture(scope="module")
def rows() -> Rows:
    logits_NC = np.random.default_rng(0).normal(0, 2.5, (256, CLASSES)).astype(np.float32)
    return Rows.of(logits_NC)


def softmax64(logits_NC: np.ndarray, temperature: float) -> np.ndarray:
    scaled = logits_NC.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def given(kept: Kept, temperature: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return softmax64(kept.decode(slice(None), temperature), temperature)


def test_the_largest_classes_come_in_order_with_their_log_probabilities(rows: Rows) -> None:
    p_NC = softmax64(rows.logits_NC, 1.0)
    # Classes of equal logits may come in either order.
    expected_NK = -np.sort(-p_NC, axis=1)[:, : rows.ids_NK.shape[1]]
    assert (np.take_along_axis(p_NC, rows.ids_NK, axis=1) == expected_NK).all()
    assert all(len(set(ids_K)) == len(ids_K) for ids_K in rows.ids_NK.tolist())
    assert np.allclose(np.exp(rows.log_p_NK), expected_NK, rtol=1e-5)


@pytest.mark.parametrize("keep", [megatron.kept, tinyvit.kept])
def test_the_head_keeps_its_probabilities_and_the_others_share_the_rest_equally(rows: Rows, keep) -> None:  # noqa: ANN001
    kept = keep(rows, 256)
    k = int(kept.name.split("top ")[1].split(",")[0])
    p_NC, q_NC = softmax64(rows.logits_NC, 1.0), given(kept, 1.0)
    head_NK = np.argsort(-p_NC, axis=1)[:, :k]
    assert np.allclose(
        np.take_along_axis(q_NC, head_NK, axis=1), np.take_along_axis(p_NC, head_NK, axis=1), rtol=4e-3
    )
    np.put_along_axis(q_NC, head_NK, np.nan, axis=1)
    assert np.allclose(np.nanmin(q_NC, axis=1), np.nanmax(q_NC, axis=1))


def test_tinyvit_takes_four_bytes_a_class_and_four_for_the_seed(rows: Rows) -> None:
    kept = tinyvit.kept(rows, 256)
    assert kept.name.startswith("TinyViT: top 63")
    assert kept.bytes_a_row == 4 + 4 * 63


def test_megatron_fills_the_budget_after_zstd_and_not_beyond(rows: Rows) -> None:
    kept = megatron.kept(rows, 256)
    assert 245 < kept.bytes_a_row <= 256
    assert int(kept.name.split("top ")[1].split(",")[0]) > 256 // 5


def test_megatron_splits_a_class_number_into_sixteen_bits_and_the_seventeenth() -> None:
    low, high, _ = megatron.tensors(np.array([[65_535, 65_536, 131_071]]), np.zeros((1, 3), np.float32))
    assert low.tolist() == [[65_535, 0, 65_535]]
    assert high.tolist() == [[False, True, True]]


def test_renormalised_gives_nothing_outside_the_head_so_its_kl_is_infinite(rows: Rows) -> None:
    kept = renormalised.kept(rows, 256)
    q_NC = given(kept, 2.0)
    assert ((q_NC > 0).sum(axis=1) == 64).all()
    assert np.allclose(q_NC.sum(axis=1), 1)
    assert math.isinf(kl_of(kept, rows.logits_NC, 2.0)[0])


def test_draws_come_up_as_often_as_their_probability_says() -> None:
    logits_C = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    drawn_ND = sampling.draw(np.repeat(logits_C[None], 40, axis=0), 1_000, np.random.default_rng(0))
    shares = np.bincount(drawn_ND.ravel(), minlength=3) / drawn_ND.size
    assert np.allclose(shares, [0.5, 0.3, 0.2], atol=0.01)


def test_sampling_counts_three_bytes_a_class_that_came_up(rows: Rows) -> None:
    kept = sampling.kept(rows, 64)
    given_N = np.isfinite(kept.decode(slice(None), 1.0)).sum(axis=1)
    assert kept.bytes_a_row == pytest.approx(3 * given_N.mean())
    assert kept.bytes_a_row <= 64


def test_the_largest_that_fits_is_found_and_none_where_one_is_too_large() -> None:
    assert largest_within(100, lambda k: 7.0 * k, 50) == 14
    assert largest_within(1_000, lambda k: 7.0 * k, 50) == 50
    assert largest_within(6, lambda k: 7.0 * k, 50) is None


def test_the_error_of_a_gradient_is_that_of_the_whole_batch_at_the_output_layer() -> None:
    rng = np.random.default_rng(1)
    logits_NC = rng.normal(0, 1, (512, 20)).astype(np.float32)
    kept_NC = (logits_NC + rng.normal(0, 0.3, logits_NC.shape)).astype(np.float32)
    features_ND = rng.normal(0, 1, (512, 5)).astype(np.float32)
    kept = Kept(name="noisy", bytes_a_row=0, decode=lambda at, temperature: kept_NC[at])
    p_NC, q_NC = softmax64(logits_NC, 2.0), softmax64(kept_NC, 2.0)
    exact_DC = features_ND.T @ (p_NC.mean(axis=0) - p_NC)
    wrong_DC = features_ND.T @ (p_NC.mean(axis=0) - q_NC)
    expected = np.linalg.norm(wrong_DC - exact_DC) / np.linalg.norm(exact_DC)
    judge = Judge(logits_NC=logits_NC, features_ND=features_ND, kl_rows=1)
    assert judge.gradient_errors(kept, 2.0)[512] == pytest.approx(expected, rel=1e-3)
