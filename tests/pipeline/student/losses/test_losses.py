"""Losses and their gradients against formulas worked out in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.student.losses.contract import LossContract

from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.losses.registry import LOSSES
from softcask.storage_schemas.errors import UnknownKind

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
RANDOM = np.random.default_rng(11)
B, C = 16, 10
STUDENT = RANDOM.normal(size=(B, C)) * 4
TEACHER = RANDOM.normal(size=(B, C)) * 8 + 3
LABELS = np.where(np.arange(B) % 3 == 0, -1, RANDOM.integers(0, C, B))
HAS_LABEL = LABELS >= 0
Array = NDArray[np.float64]


def softmax(z: Array, temperature: float = 1) -> Array:
    powers = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(1, keepdims=True))


def one_hot() -> Array:
    return np.eye(C)[LABELS.clip(0)] * HAS_LABEL[:, None]


def cross_entropies(z: Array) -> Array:
    return -np.log((softmax(z) * one_hot()).sum(1), where=HAS_LABEL, out=np.zeros(B))


def run(
    loss: LossOptions, targets: Array | None, temperature: float, dtype: torch.dtype = torch.float32
) -> tuple[float, Array]:
    """The loss and its gradient at the student's logits."""
    logits = torch.tensor(STUDENT, dtype=dtype, requires_grad=True)
    value = loss.compute(
        logits,
        None if targets is None else torch.tensor(targets, dtype=dtype),
        torch.tensor(LABELS),
        temperature,
    )
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad.double().numpy()


class TestDistillation(LossContract):
    """The contract."""

    kind = "distillation"


class TestHardLabels(LossContract):
    """The contract."""

    kind = "hard"


class TestLogitMatching(LossContract):
    """The contract."""

    kind = "logit_matching"


def make(kind: str, **options: Any) -> LossOptions:
    return LOSSES.get(kind)(kind=kind, **options)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distillation_is_t_squared_kl_mixed_with_hard_labels(temperature: float, weight: float) -> None:
    p, q = softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(1)
    expected = ((1 - weight) * soft + weight * cross_entropies(STUDENT)).mean()
    soft_gradient = (1 - weight) * temperature * (q - p)
    hard_gradient = weight * (softmax(STUDENT) - one_hot()) * HAS_LABEL[:, None]

    value, gradient = run(make("distillation", hard_label_weight=weight), p, temperature)

    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, (soft_gradient + hard_gradient) / B, rtol=0, atol=2e-6)


def test_distillation_on_rows_without_labels_is_the_soft_term_alone() -> None:
    p = softmax(TEACHER, 4)
    loss = make("distillation", hard_label_weight=0.25)
    logits, targets = torch.tensor(STUDENT), torch.tensor(p)
    none = loss.compute(logits, targets, torch.full((B,), -1), 4).item()
    assert none == pytest.approx(0.75 * 16 * (p * np.log(p / softmax(STUDENT, 4))).sum(1).mean())


def test_a_class_the_teacher_gives_no_mass_leaves_distillation_finite() -> None:
    targets = np.zeros((B, C))
    targets[:, 2] = 1
    value, gradient = run(make("distillation", hard_label_weight=0), targets, 1)
    assert value == pytest.approx(-np.log(softmax(STUDENT)[:, 2]).mean(), rel=1e-6)
    np.testing.assert_allclose(gradient, (softmax(STUDENT) - targets) / B, atol=1e-7)


def test_logit_matching_is_half_the_mean_square_of_centred_differences() -> None:
    def centred(z: Array) -> Array:
        return z - z.mean(1, keepdims=True)

    difference = centred(STUDENT) - centred(TEACHER)
    value, gradient = run(make("logit_matching"), TEACHER, 1)
    assert value == pytest.approx((difference**2).mean() / 2, rel=1e-6)
    np.testing.assert_allclose(gradient, difference / (B * C), atol=1e-7)


def test_distillation_at_a_high_temperature_tends_to_logit_matching() -> None:
    high = 1e4
    distilled = run(make("distillation", hard_label_weight=0), softmax(TEACHER, high), high, torch.float64)
    matched = run(make("logit_matching"), TEACHER, high, torch.float64)
    assert distilled[0] == pytest.approx(matched[0], rel=5e-3)
    np.testing.assert_allclose(distilled[1], matched[1], rtol=0, atol=np.abs(matched[1]).max() * 5e-3)


def test_hard_labels_average_over_labelled_rows_only() -> None:
    value, gradient = run(make("hard"), None, 20)
    expected = (softmax(STUDENT) - one_hot()) * HAS_LABEL[:, None] / HAS_LABEL.sum()
    assert value == pytest.approx(cross_entropies(STUDENT)[HAS_LABEL].mean(), rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_a_batch_without_any_label_gives_the_hard_loss_nothing_to_learn() -> None:
    logits = torch.tensor(STUDENT, requires_grad=True)
    value = make("hard").compute(logits, None, torch.full((B,), -1), 1)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownKind, match=r"unknown loss kind 'mse'; known kinds: distillation, hard, logit_m"
    ):
        LOSSES.get("mse")
