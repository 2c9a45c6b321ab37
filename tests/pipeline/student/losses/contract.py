"""What every loss must do, held against its formula in float64 numpy; its own test file subclasses this."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.losses.registry import LOSSES

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
Array = NDArray[np.float64]


def softmax(z_BC: Array, temperature: float = 1) -> Array:
    """`softmax(z / T)` in float64."""
    powers_BC = np.exp((z_BC - z_BC.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(powers_BC / powers_BC.sum(axis=1, keepdims=True))


def cross_entropies(z_BC: Array, labels_B: NDArray[np.int64], smoothing: float = 0) -> Array:
    """`-sum_i y_i log softmax(z)_i` in float64; 0 of rows without label."""
    C = z_BC.shape[1]
    y_BC = (1 - smoothing) * np.eye(C)[labels_B.clip(0)] + smoothing / C
    return -(y_BC * np.log(softmax(z_BC))).sum(axis=1) * (labels_B >= 0)


class LossContract:
    """Subclass it, name the loss's `kind`, and write its formula out.

    Attributes:
        kind: Of the loss.
        options: Of the loss, where they are not its defaults.
        rows, classes: B and C of what it is tried on.
        along_one_direction: Whether finite differences are taken along a random direction, not one by one.
    """

    kind: str
    options: ClassVar[dict[str, Any]] = {}
    rows, classes = 16, 10
    along_one_direction = False

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        """The formula: each row's loss in float64 numpy, 0 of rows that do not count."""
        raise NotImplementedError

    def counted(self, labels_B: NDArray[np.int64]) -> int:
        """What the sum over rows is divided by."""
        return len(labels_B)

    def targets(self, teacher_BC: Array, temperature: float, dtype: torch.dtype) -> Any:
        """What the loss is given of a teacher's logits."""
        tempered_BC = softmax(teacher_BC, temperature)
        given: dict[str, Any] = {"logits": teacher_BC, "probabilities": tempered_BC, "labels": None}
        array = given[self.loss().needs]
        return None if array is None else torch.tensor(array, dtype=dtype)

    def loss(self) -> LossOptions:
        """The loss, as a student's file makes it."""
        return LOSSES.get(self.kind).model_validate({"kind": self.kind, **self.options})

    @pytest.fixture
    def student_BC(self) -> Array:
        """A student's logits."""
        return np.random.default_rng(1).normal(0, 4, (self.rows, self.classes))

    @pytest.fixture
    def teacher_BC(self) -> Array:
        """A teacher's logits."""
        return np.random.default_rng(2).normal(3, 4, (self.rows, self.classes))

    @pytest.fixture
    def labels_B(self) -> NDArray[np.int64]:
        """Labels; every third row has none."""
        labels_B = np.random.default_rng(3).integers(0, self.classes, self.rows)
        return np.where(np.arange(self.rows) % 3 == 0, -1, labels_B)

    @pytest.fixture
    def weights_B(self) -> NDArray[np.float32]:
        """Weights; the fifth row's is 0."""
        weights_B = np.random.default_rng(4).uniform(0.1, 3, self.rows).astype(np.float32)
        weights_B[4] = 0
        return weights_B

    def run(
        self,
        student_BC: Array,
        teacher_BC: Array,
        labels_B: NDArray[np.int64],
        temperature: float,
        weights_B: NDArray[np.float32] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[float, Array]:
        """The loss and its gradient at the student's logits."""
        logits_BC = torch.tensor(student_BC, dtype=dtype, requires_grad=True)
        value = self.loss().compute(
            logits_BC,
            self.targets(teacher_BC, temperature, dtype),
            torch.from_numpy(labels_B),
            temperature,
            weights_B=None if weights_B is None else torch.from_numpy(weights_B),
        )
        value.backward()  # type: ignore[no-untyped-call]
        assert logits_BC.grad is not None
        return value.item(), logits_BC.grad.double().numpy()

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_it_is_its_formula_at_any_temperature(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> None:
        value, _ = self.run(student_BC, teacher_BC, labels_B, temperature)
        losses_B = self.row_losses(student_BC, teacher_BC, labels_B, temperature)
        assert value == pytest.approx(losses_B.sum() / self.counted(labels_B), rel=2e-5)

    def test_rows_without_labels_have_what_the_formula_leaves_them(
        self, student_BC: Array, teacher_BC: Array
    ) -> None:
        none_B = np.full(self.rows, -1)
        value, gradient_BC = self.run(student_BC, teacher_BC, none_B, 3.0)
        expected = self.row_losses(student_BC, teacher_BC, none_B, 3.0).mean()
        assert value == pytest.approx(expected, rel=2e-5)
        assert np.isfinite(gradient_BC).all()

    def test_a_weight_is_a_factor_of_its_rows_loss(
        self,
        student_BC: Array,
        teacher_BC: Array,
        labels_B: NDArray[np.int64],
        weights_B: NDArray[np.float32],
    ) -> None:
        value, gradient_BC = self.run(student_BC, teacher_BC, labels_B, 3.0, weights_B)
        losses_B = self.row_losses(student_BC, teacher_BC, labels_B, 3.0)
        assert value == pytest.approx((losses_B * weights_B).sum() / self.counted(labels_B), rel=2e-5)
        assert not gradient_BC[4].any()

    def test_weights_of_one_change_nothing(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64]
    ) -> None:
        ones_B = np.ones(self.rows, np.float32)
        weighted, plain = (self.run(student_BC, teacher_BC, labels_B, 3.0, each) for each in (ones_B, None))
        assert weighted[0] == pytest.approx(plain[0], rel=1e-6)
        np.testing.assert_allclose(weighted[1], plain[1], rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("temperature", [0.5, 3.0, 20.0])
    def test_its_gradient_agrees_with_finite_differences(
        self,
        student_BC: Array,
        teacher_BC: Array,
        labels_B: NDArray[np.int64],
        weights_B: NDArray[np.float32],
        temperature: float,
    ) -> None:
        loss, targets = self.loss(), self.targets(teacher_BC, temperature, torch.float64)
        labels, weights = torch.from_numpy(labels_B), torch.from_numpy(weights_B)

        def value(logits: torch.Tensor) -> torch.Tensor:
            return loss.compute(logits, targets, labels, temperature, weights_B=weights)

        logits_BC = torch.tensor(student_BC, requires_grad=True)
        fast = self.along_one_direction
        assert torch.autograd.gradcheck(value, logits_BC, fast_mode=fast)  # type: ignore[no-untyped-call]

    def test_logits_of_16_bits_are_widened_first(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64]
    ) -> None:
        targets, labels = self.targets(teacher_BC, 3.0, torch.float32), torch.from_numpy(labels_B)
        narrow_BC = torch.tensor(student_BC).bfloat16().requires_grad_()
        value = self.loss().compute(narrow_BC, targets, labels, 3.0)
        assert value.dtype == torch.float32
        wide_BC = narrow_BC.detach().float().requires_grad_()
        assert value.item() == self.loss().compute(wide_BC, targets, labels, 3.0).item()
        value.backward()  # type: ignore[no-untyped-call]
        assert narrow_BC.grad is not None
        assert narrow_BC.grad.dtype == torch.bfloat16

    def test_under_autocast_it_is_what_it_is_without(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64]
    ) -> None:
        plain = self.run(student_BC, teacher_BC, labels_B, 3.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = self.run(student_BC, teacher_BC, labels_B, 3.0)
        assert cast[0] == plain[0]
        np.testing.assert_array_equal(cast[1], plain[1])
