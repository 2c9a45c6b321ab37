"""Batches that do not fit: in pieces where the size is free, else an error that names the option."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.teachers.fitting import FittedTeacher
from softcask.pipeline.teachers.preparation import Numbers
from softcask.pipeline.teachers.torch_teacher import TorchTeacher
from softcask.storage_schemas.errors import TeacherOutOfMemory

ROWS_BC = np.arange(80, dtype=np.float32).reshape(40, 2)


@dataclass
class Roomy:
    """A teacher whose device has room for so many rows."""

    most: int
    name: str = "a"
    tried: list[int] = field(default_factory=list)

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        self.tried.append(len(inputs_B))
        if len(inputs_B) > self.most:
            raise TeacherOutOfMemory(
                f"teacher 'a' ran out of memory on cuda:0 with {len(inputs_B)} rows: full"
            )
        return inputs_B.astype(np.float32)

    def state_digest(self) -> str:
        return "sha256:of nothing"


class Greedy(torch.nn.Module):
    """Asks the host for a million gigabytes for any batch of more than `most` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.most:
            torch.empty(10**15)
        return batch


def greedy(most: int) -> TorchTeacher:
    preparation = Numbers(PreprocessingOptions())
    return TorchTeacher("a", Greedy(most), torch.device("cpu"), preparation=preparation)


def test_a_size_that_is_free_halves_until_the_batch_fits_and_is_remembered() -> None:
    teacher = Roomy(most=5)
    fitted = FittedTeacher(teacher, "auto")
    np.testing.assert_array_equal(fitted.logits(ROWS_BC), ROWS_BC)
    # 40 rows are tried, not the 256 that were allowed: half of what was tried is what may fit.
    assert teacher.tried == [40, 20, 10, *[5] * 8]
    np.testing.assert_array_equal(fitted.logits(ROWS_BC[:7]), ROWS_BC[:7])
    assert (teacher.tried[11:], fitted.rows) == ([5, 2], 5)


def test_what_was_halved_is_told_once() -> None:
    fitted = FittedTeacher(Roomy(most=10), "auto")
    fitted.logits(ROWS_BC)
    told = fitted.told()
    assert [line.partition("; ")[2] for line in told] == [
        "20 rows at once from here on",
        "10 rows at once from here on",
    ]
    assert "ran out of memory on cuda:0 with 40 rows" in told[0]
    fitted.logits(ROWS_BC)
    assert fitted.told() == ()


def test_memory_that_is_short_for_a_while_costs_pieces_and_no_rows() -> None:
    teacher = Roomy(most=16)
    fitted = FittedTeacher(teacher, "auto")
    found = fitted.in_pieces(ROWS_BC, teacher.logits)
    rows, first_BC = next(found)
    teacher.most = 3
    rest = [piece for _, piece in found]
    assert rows == slice(0, 10)
    np.testing.assert_array_equal(np.concatenate([first_BC, *rest]), ROWS_BC)


def test_a_size_that_was_asked_for_is_never_changed_and_the_error_names_the_option() -> None:
    fitted = FittedTeacher(Roomy(most=5), 16)
    with pytest.raises(TeacherOutOfMemory) as caught:
        fitted.logits(ROWS_BC)
    for part in (
        "teacher 'a' ran out of memory on cuda:0 with 16 rows",
        "lower batch_size than 16",
        '"auto"',
        "new name",
    ):
        assert part in str(caught.value)


def test_a_row_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(TeacherOutOfMemory, match="One row alone does not fit"):
        FittedTeacher(Roomy(most=0), "auto").logits(ROWS_BC)


def test_a_host_without_memory_is_told_from_other_errors_of_a_module() -> None:
    with pytest.raises(TeacherOutOfMemory, match=r"'a' ran out of memory on cpu with 40 rows: .*allocate"):
        greedy(most=8).logits(ROWS_BC)


def test_a_module_of_torch_runs_in_pieces_that_fit() -> None:
    fitted = FittedTeacher(greedy(most=8), "auto")
    np.testing.assert_array_equal(fitted.logits(ROWS_BC), ROWS_BC)
    assert fitted.rows == 5


def test_what_cuda_raises_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee more")

    teacher = greedy(most=1)
    monkeypatch.setattr(teacher, "_call", Full())
    with pytest.raises(TeacherOutOfMemory, match=r"rows: CUDA out of memory. Tried to allocate 2.00 GiB.$"):
        teacher.logits(ROWS_BC)
