"""What is told of how a teacher computes, and what of it lets bits differ."""

from __future__ import annotations

from typing import Any

import torch

from softcask.pipeline.teachers.conditions import conditions_of, may_differ

CPU = {"device": "cpu", "torch": "2.13.0", "threads": 4, "deterministic": False}
CUDA = {"device": "cuda", "gpu": "H100", "torch": "2.13.0", "deterministic": True, "cudnn_benchmark": False}


def test_one_kind_of_cpu_gives_the_same_bits() -> None:
    assert may_differ([CPU]) == ()
    assert may_differ([CUDA]) == ()
    assert may_differ([]) == ()


def test_workers_that_differ_are_named_with_what_differs() -> None:
    (reason,) = may_differ([CPU, {**CPU, "threads": 8}])
    assert reason == "workers differed in threads: 4, 8"
    assert len(may_differ([CUDA, {**CUDA, "gpu": "A100", "torch": "2.12.0"}])) == 2


def test_cuda_kernels_that_are_chosen_freely_are_said_to_differ() -> None:
    (reason,) = may_differ([{**CUDA, "deterministic": False}])
    assert "use_deterministic_algorithms was off" in reason
    (reason,) = may_differ([{**CUDA, "cudnn_benchmark": True}])
    assert "cuDNN timed its kernels" in reason


def test_what_a_teacher_says_of_itself_counts_and_is_told_once() -> None:
    compiled = {**CUDA, "deterministic": False, "may_differ": ["kernels were compiled"]}
    assert may_differ([compiled, compiled]) == ("kernels were compiled",)
    assert may_differ([{**CUDA, "deterministic": False, "may_differ": []}]) == ()


def test_batches_that_were_fitted_to_memory_are_said_to_differ() -> None:
    class Fitted:
        is_auto = True
        teacher = object()

    (reason,) = may_differ([conditions_of(Fitted())])
    assert "batch_size = auto" in reason


def test_a_teacher_without_a_device_is_told_by_its_machine() -> None:
    assert conditions_of(object())["device"] == "cpu"


def test_torchs_settings_are_told_as_they_are() -> None:
    class OnCpu:
        device = torch.device("cpu")

    def told() -> dict[str, Any]:
        return conditions_of(OnCpu())

    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        assert told()["deterministic"] is True
        torch.use_deterministic_algorithms(False)
        assert told()["deterministic"] is False
    finally:
        torch.use_deterministic_algorithms(before)
    assert told()["matmul_precision"] == torch.get_float32_matmul_precision()
