"""One teacher's rows as they are stored: what comes, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.storage_schemas.codecs.lowrank_codecs import lowrank

from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import CodecSpec


@dataclass
class Teacher:
    codec: CodecSpec
    absent_classes: tuple[int, ...] = (1, 4)
    role: str = "member"
    kind: str = "torch"
    num_classes: int = 22


class OneStore:
    """Teachers of 20 stored classes of 22, kept by codecs."""

    uri = "memory://cask"
    class_names = tuple(map(str, range(22)))

    def __init__(self, **codecs: Codec) -> None:
        logits_NK = np.random.default_rng(1).normal(0, 3, (30, 20)).astype(np.float32)
        self.codecs = codecs
        self.teachers: Mapping[str, Teacher] = {
            name: Teacher(codec.to_spec()) for name, codec in codecs.items()
        }
        self.columns = {name: codec.encode(logits_NK) for name, codec in codecs.items()}

    def codec(self, teacher: str) -> Codec:
        return self.codecs[teacher]

    def encoded(
        self, teachers: str | Sequence[str], rows_B: NDArray[np.int64], **view: Any
    ) -> dict[str, NDArray[Any]]:
        return {column: values[rows_B][None] for column, values in self.columns[str(teachers)].items()}


TOP_K = TopK(settings=Settings(num_classes=20, head_size=4))


def targets(**codecs: Codec) -> SoftTargets:
    return SoftTargets(OneStore(**codecs))  # type: ignore[arg-type]


def test_columns_come_as_they_are_stored_and_know_how_they_are_read() -> None:
    chosen = targets(a=TOP_K)
    chosen.check_compressed()
    rows_B = np.array([7, 3, 3])
    columns = chosen.columns(rows_B)
    compressed = chosen.compressed(columns)
    assert (len(compressed), compressed.num_classes, compressed.absent_classes) == (3, 22, (1, 4))
    assert compressed.codec is TOP_K
    for name, values in chosen.store.columns["a"].items():  # type: ignore[attr-defined]
        np.testing.assert_array_equal(compressed.columns[name], values[rows_B])


def test_on_a_device_columns_are_tensors_of_the_same_bytes() -> None:
    chosen = targets(a=TOP_K)
    compressed = chosen.compressed(chosen.columns(np.arange(5)))
    on_device = compressed.to("cpu").to(torch.device("cpu"))
    assert len(on_device) == 5
    for name, values in compressed.columns.items():
        assert on_device.columns[name].numpy().tobytes() == values.tobytes()


def test_several_teachers_are_refused() -> None:
    with pytest.raises(StoreError, match=r"one teacher's; found a, b of memory://cask. Name one .*combine"):
        targets(a=TOP_K, b=TOP_K).check_compressed()


def test_rows_of_no_fixed_size_are_refused() -> None:
    pytest.importorskip("constriction")
    with pytest.raises(StoreError, match=r"'a' of memory://cask is kept row by row .*reencode"):
        targets(a=lowrank(20, coder="ans")).check_compressed()
    targets(a=lowrank(20)).check_compressed()
