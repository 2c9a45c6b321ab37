"""Which teachers share a worker: by equal needs, as stated, and only where they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from softcask.pipeline.precompute.groups import group_teachers, memory_gb
from softcask.pipeline.teachers.torch_kind import TorchTeacherOptions
from softcask.storage_schemas.errors import ConfigError


def teacher(name: str, **options: Any) -> TorchTeacherOptions:
    return TorchTeacherOptions(name=name, factory="toy_models:net", **options)


def names(*teachers: TorchTeacherOptions, gpu_memory_gb: float | None = None) -> list[list[str]]:
    return [[t.name for t in members] for members in group_teachers(teachers, gpu_memory_gb).values()]


def test_teachers_with_equal_needs_share_a_worker() -> None:
    assert names(teacher("a"), teacher("b", num_gpus=1), teacher("c"), teacher("d", batch_size=8)) == [
        ["a", "c"],
        ["b"],
        ["d"],
    ]


def test_teachers_share_a_gpu_only_where_they_fit_together() -> None:
    sizes = {"a": 30, "b": 50, "c": 20, "d": 25}
    teachers = [teacher(name, num_gpus=1, memory_gb=size) for name, size in sizes.items()]
    assert names(*teachers) == [["a", "b", "c", "d"]]
    assert names(*teachers, gpu_memory_gb=80) == [["a", "b"], ["c", "d"]]
    assert names(*teachers, gpu_memory_gb=50) == [["b"], ["a", "c"], ["d"]]


@given(
    sizes=st.lists(st.floats(0.1, 40), min_size=1, max_size=8), share=st.sampled_from([0.5, 1.0, 2.0, 4.0])
)
def test_no_worker_holds_more_than_its_gpus_and_every_teacher_is_in_one(
    sizes: list[float], share: float
) -> None:
    teachers = [teacher(f"t{i}", num_gpus=share, memory_gb=size) for i, size in enumerate(sizes)]
    groups = group_teachers(teachers, 80.0)
    assert sorted(t.name for members in groups.values() for t in members) == sorted(t.name for t in teachers)
    assert all(sum(map(memory_gb, members)) <= 80 * share + 1e-9 for members in groups.values())


def test_a_share_of_a_gpu_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'a' takes 60.0 GB, and num_gpus = 0.5 gives it 40.0 GB"):
        names(teacher("a", num_gpus=0.5, memory_gb=60), gpu_memory_gb=80)


def test_a_stated_group_that_does_not_fit_is_refused() -> None:
    both = [teacher(name, num_gpus=1, memory_gb=50, group="g") for name in "ab"]
    assert names(*both) == [["a", "b"]]
    with pytest.raises(ConfigError, match="group 'g' do not fit their GPUs together: a 50.0 GB, b 50.0 GB"):
        names(*both, gpu_memory_gb=80)


def test_what_is_not_stated_is_guessed_from_the_weights_file(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    with weights.open("wb") as file:
        file.truncate(10 * 10**9)  # a hole; nothing is written
    assert memory_gb(teacher("a", weights=str(weights))) == pytest.approx(1.2 * 10 + 1)
    assert memory_gb(teacher("a", weights=str(weights), memory_gb=3)) == 3
    assert memory_gb(teacher("a", weights=str(tmp_path / "none.pt"))) == 0
    assert memory_gb(teacher("a")) == 0


def test_gpus_beyond_one_are_whole() -> None:
    assert teacher("a", num_gpus=4).num_gpus == 4
    with pytest.raises(ValidationError, match="whole beyond 1"):
        teacher("a", num_gpus=1.5)
