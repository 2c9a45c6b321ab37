"""KL from stored columns, against what the numpy codecs decode of them in float64."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.pipeline.student.losses.contract import (
    TEMPERATURES,
    Array,
    LossContract,
    cross_entropies,
    softmax,
)
from tests.storage_schemas.codecs.lowrank_codecs import lowrank
from torch.utils._python_dispatch import TorchDispatchMode

from softcask.pipeline.device_codecs.tempered import base
from softcask.pipeline.student.losses.compressed_kl import CompressedKL
from softcask.pipeline.targets.compressed import CompressedTargets
from softcask.storage_schemas.absent import with_absent, without_absent
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.topk import Settings, TopK


class CompressedKLContract(LossContract):
    """The contract of a codec's columns; classes come in three chunks.

    Attributes:
        absent: Classes that the teacher never gives.
    """

    kind = "compressed_kl"
    rows, classes = 6, 150
    along_one_direction = True  # all directions are held against the formula below
    absent: ClassVar[tuple[int, ...]] = ()
    weight, smoothing = 0.1, 0.0

    def codec(self, classes: int) -> Codec:
        """What the teacher's logits are kept by."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def in_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(base, "NUMBERS_ON_CPU", 64 * self.rows)

    def targets(self, teacher_BC: Array, temperature: float, dtype: torch.dtype) -> CompressedTargets:
        stored_BK = without_absent(teacher_BC.astype(np.float32), self.absent)
        codec = self.codec(stored_BK.shape[1])
        return CompressedTargets(
            columns=codec.encode(np.ascontiguousarray(stored_BK)),
            codec=codec,
            num_classes=self.classes,
            absent_classes=self.absent,
        )

    def kept(self, teacher_BC: Array, temperature: float) -> Array:
        """Soft targets `[B, C]` that the numpy codec decodes."""
        targets = self.targets(teacher_BC, temperature, torch.float32)
        decoded_BK = targets.codec.decode(targets.columns, temperature).shifted_BC
        return softmax(with_absent(decoded_BK, self.classes, self.absent).astype(np.float64), temperature)

    def row_losses(
        self, student_BC: Array, teacher_BC: Array, labels_B: NDArray[np.int64], temperature: float
    ) -> Array:
        p_BC, q_BC = self.kept(teacher_BC, temperature), softmax(student_BC, temperature)
        logs_BC = np.log(p_BC / q_BC, where=p_BC > 0, out=np.zeros_like(p_BC))
        soft_B = temperature**2 * (p_BC * logs_BC).sum(axis=1)
        return (1 - self.weight) * soft_B + self.weight * cross_entropies(
            student_BC, labels_B, self.smoothing
        )

    @pytest.mark.parametrize("temperature", TEMPERATURES)
    def test_its_gradient_is_t_times_the_difference_of_probabilities(
        self, student_BC: Array, teacher_BC: Array, temperature: float
    ) -> None:
        logits_BC = torch.tensor(student_BC, requires_grad=True)
        targets = self.targets(teacher_BC, temperature, torch.float64)
        none_B = torch.full((self.rows,), -1)
        value = CompressedKL(hard_label_weight=0.0).compute(logits_BC, targets, none_B, temperature)
        value.backward()  # type: ignore[no-untyped-call]
        difference_BC = softmax(student_BC, temperature) - self.kept(teacher_BC, temperature)
        assert logits_BC.grad is not None
        expected_BC = temperature * difference_BC / self.rows
        np.testing.assert_allclose(logits_BC.grad.numpy(), expected_BC, rtol=0, atol=3e-6)


class TestOfTopK(CompressedKLContract):
    """A head, and a tail that is even."""

    def codec(self, classes: int) -> Codec:
        return TopK(settings=Settings(num_classes=classes, head_size=9))


class TestOfTopKOfAllClasses(CompressedKLContract):
    """No tail."""

    def codec(self, classes: int) -> Codec:
        return TopK(settings=Settings(num_classes=classes, head_size=classes))


class TestOfTopKWithAbsentClasses(TestOfTopK):
    """Absent ones in every chunk, all of one among them."""

    absent: ClassVar[tuple[int, ...]] = (0, 63, *range(64, 128), 140)


class TestOfLowrank(CompressedKLContract):
    """A head above a profile."""

    def codec(self, classes: int) -> Codec:
        return lowrank(classes, rank=6, head=7)


class TestOfLowrankOfCoarseHeads(CompressedKLContract):
    """Residuals of two bits, by which a second class may come to lie above the largest."""

    def codec(self, classes: int) -> Codec:
        return lowrank(classes, rank=3, head=12, bits=2)


class TestOfLowrankOfRankZero(CompressedKLContract):
    """A head above the mean profile."""

    def codec(self, classes: int) -> Codec:
        return lowrank(classes, rank=0, head=1)


class TestOfLowrankBesideSmoothedLabels(TestOfLowrank):
    """Two fifths of it cross-entropy."""

    options: ClassVar[dict[str, Any]] = {"hard_label_weight": 0.4, "label_smoothing": 0.1}
    weight, smoothing = 0.4, 0.1


class TestOfLowrankOfAPaddedLayer(TestOfLowrank):
    """The last classes absent."""

    absent: ClassVar[tuple[int, ...]] = tuple(range(120, 150))


class TestOfLowrankWithAbsentClasses(TestOfLowrank):
    """Some absent in the middle."""

    absent: ClassVar[tuple[int, ...]] = (3, 70, 71, 149)


class TestOfDense8(CompressedKLContract):
    """All classes in 8 bits."""

    def codec(self, classes: int) -> Codec:
        return Dense8()


class TestOfDense16(CompressedKLContract):
    """All classes in half precision."""

    def codec(self, classes: int) -> Codec:
        return Dense16()


class Sizes(TorchDispatchMode):
    """Notes how many numbers each operation gives that shares no memory with what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in given:
                self.found.append(each.numel())
        return out


@pytest.mark.parametrize("kind", ["topk", "lowrank"])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_nothing_of_the_size_of_the_logits_is_made_but_one_gradient_a_term(
    kind: str, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    B, C = 8, 2000
    monkeypatch.setattr(base, "NUMBERS_ON_CPU", 128 * B)
    codecs = {"topk": TopK(settings=Settings(num_classes=C, head_size=20)), "lowrank": lowrank(C, head=20)}
    logits_BC = np.random.default_rng(1).normal(0, 3, (B, C)).astype(np.float32)
    codec: Codec = codecs[kind]
    targets = CompressedTargets(columns=codec.encode(logits_BC), codec=codec, num_classes=C)
    student_BC = torch.zeros(B, C, requires_grad=True)
    labels_B = torch.arange(B)
    loss = CompressedKL(hard_label_weight=weight)
    loss.compute(student_BC, targets, labels_B, 2.0)  # the basis is brought to the device once
    with Sizes() as sizes:
        loss.compute(student_BC, targets, labels_B, 2.0).backward()  # type: ignore[no-untyped-call]
    whole = [size for size in sizes.found if size >= B * C]
    terms = 2 if weight else 1
    assert len(whole) <= terms + 1  # and their sum
    assert max(size for size in sizes.found if size < B * C) <= max(128 * B, B * 20 * 20, 128 * 6)


def test_logits_of_other_rows_or_classes_are_refused() -> None:
    codec = Dense16()
    targets = CompressedTargets(
        columns=codec.encode(np.zeros((3, 5), np.float32)), codec=codec, num_classes=5
    )
    for shape in ((2, 5), (3, 4)):
        with pytest.raises(ValueError, match=r"soft targets of 3 rows and 5 classes met logits of shape"):
            CompressedKL().compute(torch.zeros(shape), targets, torch.zeros(shape[0]).long(), 1.0)
