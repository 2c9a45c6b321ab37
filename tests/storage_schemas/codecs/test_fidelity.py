from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from softcask.storage_schemas.codecs import fidelity
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import Loss, divergence, divergences, gradient_error, judge
from softcask.storage_schemas.codecs.topk import Settings, TopK

ROWS = st.tuples(st.integers(1, 5), st.just(7))
LOGITS = hnp.arrays(np.float32, ROWS, elements=st.floats(-50, 50, width=32))
CODEC = TopK(settings=Settings(num_classes=30, head_size=3, temperatures=(1.0, 2.0, 4.0)))


def some_BC(rows: int = 40, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (rows, 30)).astype(np.float32)


@given(logits_BC=LOGITS, temperature=st.floats(0.5, 20), data=st.data())
def test_divergence_is_kl_as_torch_has_it(
    logits_BC: NDArray[np.float32], temperature: float, data: st.DataObject
) -> None:
    shape = logits_BC.shape
    other_BC = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-50, 50, width=32)))
    log_p_BC, log_q_BC = (
        torch.log_softmax(torch.from_numpy(values_BC).double() / temperature, dim=1)
        for values_BC in (logits_BC, other_BC)
    )
    expected_B = torch.nn.functional.kl_div(log_q_BC, log_p_BC, log_target=True, reduction="none").sum(dim=1)
    kl_B = divergence(logits_BC, other_BC, temperature)
    np.testing.assert_allclose(kl_B, expected_B.numpy(), rtol=1e-9, atol=1e-12)
    assert (kl_B >= 0).all()


def test_two_classes_that_swap_their_odds_differ_by_what_paper_and_pencil_say() -> None:
    # p = (3/4, 1/4), q = (1/4, 3/4): KL = 3/4 ln 3 - 1/4 ln 3.
    logits_BC = np.log([[3.0, 1.0]])
    assert divergence(logits_BC, logits_BC[:, ::-1], 1.0)[0] == pytest.approx(0.5 * math.log(3))
    # At T = 1/2 the odds are 9 to 1; a shift changes nothing.
    expected = 0.8 * math.log(9)
    assert divergence(logits_BC, logits_BC[:, ::-1] + 7, 0.5)[0] == pytest.approx(expected)


def test_rows_are_judged_alike_in_however_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_BC = some_BC()
    columns = CODEC.encode(logits_BC)
    whole_R = divergence(logits_BC, CODEC.decode(columns, 2.0).shifted_BC, 2.0)
    gradient = gradient_error(CODEC, logits_BC, 2.0, 8)
    for values in (1, 90, 1000):
        monkeypatch.setattr(fidelity, "_BLOCK_VALUES", values)
        np.testing.assert_allclose(divergences(CODEC, columns, logits_BC, 2.0), whole_R, rtol=1e-12)
        assert gradient_error(CODEC, logits_BC, 2.0, 8) == pytest.approx(gradient)


def test_a_codec_is_judged_at_the_temperatures_that_it_claims() -> None:
    logits_BC = some_BC()
    losses = judge(CODEC, logits_BC, (0.5, 1.0, 3.0, 20.0))
    assert losses.keys() == {1.0, 3.0}
    kl_R = divergence(logits_BC, CODEC.decode(CODEC.encode(logits_BC), 3.0).shifted_BC, 3.0)
    assert losses[3.0].mean == pytest.approx(kl_R.mean())
    assert losses[3.0].max == kl_R.max()
    assert np.sort(kl_R)[-2] < losses[3.0].p99 < kl_R.max()
    assert json.loads(json.dumps(losses[3.0].to_dict())) == {
        name: getattr(losses[3.0], name) for name in ("mean", "p99", "max")
    }


def test_the_dense_codecs_are_ranked_as_their_bits_have_it() -> None:
    logits_BC = some_BC(200)
    for temperature in fidelity.TEMPERATURES:
        sixteen, eight = (judge(codec, logits_BC)[temperature].mean for codec in (Dense16(), Dense8()))
        assert 0 < 20 * sixteen < eight


def test_a_single_row_has_one_loss() -> None:
    assert Loss.of(np.array([0.25])) == Loss(mean=0.25, p99=0.25, max=0.25)


def softmax_BC(logits_BC: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    exp_BC = np.exp(logits_BC.astype(np.float64) / temperature)
    return exp_BC / exp_BC.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("informed", [False, True])
def test_the_gradients_error_is_that_of_the_mean_over_a_batch(informed: bool) -> None:
    logits_BC, student_BC = some_BC(16), some_BC(16, seed=2) if informed else None
    p_BC = softmax_BC(logits_BC, 2.0)
    decoded_BC = softmax_BC(CODEC.decode(CODEC.encode(logits_BC), 2.0).shifted_BC, 2.0)
    q_BC = np.full_like(p_BC, 1 / 30) if student_BC is None else softmax_BC(student_BC, 2.0)
    expected = np.linalg.norm((decoded_BC - p_BC).mean(axis=0)) / np.linalg.norm((p_BC - q_BC).mean(axis=0))
    assert 0 < gradient_error(CODEC, logits_BC, 2.0, 16, student_BC) == pytest.approx(expected)


def test_the_gradient_is_the_one_that_a_student_gets() -> None:
    logits_BC, student_BC = some_BC(16), some_BC(16, seed=2)
    gradients = []
    for teacher_BC in (logits_BC, CODEC.decode(CODEC.encode(logits_BC), 2.0).shifted_BC):
        bias_C = torch.zeros(30, dtype=torch.float64, requires_grad=True)
        log_q_BC = torch.log_softmax((torch.from_numpy(student_BC) + bias_C) / 2.0, dim=1)
        p_BC = torch.softmax(torch.from_numpy(teacher_BC).double() / 2.0, dim=1)
        torch.nn.functional.kl_div(log_q_BC, p_BC, reduction="batchmean").backward()
        assert bias_C.grad is not None
        gradients.append(bias_C.grad)
    expected = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    assert gradient_error(CODEC, logits_BC, 2.0, 16, student_BC) == pytest.approx(expected)


def test_errors_of_several_batches_are_added_in_squares_and_what_fills_no_batch_is_left_out() -> None:
    logits_BC = some_BC(11)
    p_BC = softmax_BC(logits_BC, 1.0)
    error_BC = softmax_BC(CODEC.decode(CODEC.encode(logits_BC)).shifted_BC, 1.0) - p_BC
    squares = [
        sum(float((values_BC[first : first + 5].sum(axis=0) ** 2).sum()) for first in (0, 5))
        for values_BC in (error_BC, p_BC - 1 / 30)
    ]
    assert gradient_error(CODEC, logits_BC, 1.0, 5) == pytest.approx(math.sqrt(squares[0] / squares[1]))
    assert math.isnan(gradient_error(CODEC, logits_BC, 1.0, 12))
