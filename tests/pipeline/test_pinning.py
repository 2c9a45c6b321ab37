"""A name is pinned to one teacher, also when a run that pins it anew meets one that commits under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.stores import MadeStore, all_objects, overtaken, teacher_manifest

from softcask.pipeline.pinning import pin
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.receipts import committed_units, read_commit
from softcask.pipeline.store.writing.commit import commit_unit
from softcask.pipeline.store.writing.sealing import seal
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.base import RowBatch
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import ManifestMismatch
from softcask.storage_schemas.manifest import TeacherManifest

UNIT = "s0000-v0000-00000000"
PINNED = keys.teacher_manifest("alpha")
RECEIPT = keys.commit("alpha", UNIT)


class Rows:
    """Row i is i."""

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        return RowBatch(inputs_B=positions_B.astype(np.float32)[:, None])


@dataclass(frozen=True)
class Linear:
    """Three logits of a row, other ones for each seed."""

    seed: int

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        weights_C = np.random.default_rng(self.seed).normal(size=(1, 3))
        return (inputs_B @ weights_C).astype(np.float32)

    def state_digest(self) -> str:
        return f"sha256:{self.seed}"


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Two units of 8 and 3 rows; `alpha` is pinned with seed 0, nothing committed."""
    made = MadeStore.at(str(tmp_path / "store"))
    made.add_segment(11)
    pin_alpha(made, made.objects, seed=0)
    return made


def pin_alpha(made: MadeStore, objects: StoreObjects, *, seed: int) -> None:
    options = TeacherOptions(kind="torch", name="alpha", batch_size=4)
    pin(objects, Linear(seed), options, alpha(seed), Rows(), list(made.segments.values()))  # type: ignore[arg-type]


def alpha(seed: int) -> TeacherManifest:
    return teacher_manifest("alpha", seed=seed)


def commit(made: MadeStore, objects: StoreObjects, *, seed: int, index: int = 0) -> None:
    rows = made.rows_of(index)
    inputs_B = np.arange(*rows.segment.unit_range(index), dtype=np.float32)[:, None]
    commit_unit(objects, alpha(seed), rows, Linear(seed).logits(inputs_B))


def check_usable(made: MadeStore, *, seed: int) -> None:
    """The run of this seed finishes, and what it leaves is right."""
    pin_alpha(made, made.objects, seed=seed)
    for index in range(2):
        commit(made, made.objects, seed=seed, index=index)
    assert seal(made.objects).teachers["alpha"].units == 2
    assert verify(made.objects.uri).problems == ()


def test_a_name_is_free_until_a_unit_is_committed(made: MadeStore) -> None:
    pin_alpha(made, made.objects, seed=1)
    check_usable(made, seed=1)
    before = all_objects(made.objects)
    with pytest.raises(ManifestMismatch, match="2 units committed"):
        pin_alpha(made, made.objects, seed=0)
    assert all_objects(made.objects) == before


def test_other_parameters_or_logits_behind_one_fingerprint_are_refused(made: MadeStore) -> None:
    options = TeacherOptions(kind="torch", name="alpha", batch_size=4)
    with pytest.raises(ManifestMismatch, match="parameters are not those"):
        pin(made.objects, Linear(1), options, alpha(0), Rows(), list(made.segments.values()))  # type: ignore[arg-type]


def test_a_unit_committed_just_before_the_name_is_pinned_anew_keeps_the_name(made: MadeStore) -> None:
    """The run that pins has seen no unit; the other one commits before the new pin is written."""
    objects = overtaken(made.objects, PINNED, lambda: commit(made, made.objects, seed=0))
    before = all_objects(made.objects)
    with pytest.raises(ManifestMismatch):
        pin_alpha(made, objects, seed=1)
    after = all_objects(made.objects)
    assert {key: after[key] for key in before} == before
    check_usable(made, seed=0)


def test_a_unit_committed_between_the_last_look_and_the_new_pin_keeps_the_name(made: MadeStore) -> None:
    """The first write of the pin finds the name taken, the last look no unit; then the other one commits."""
    objects = overtaken(made.objects, PINNED, lambda: None, lambda: commit(made, made.objects, seed=0))
    before = all_objects(made.objects)
    with pytest.raises(ManifestMismatch, match="has just committed a unit"):
        pin_alpha(made, objects, seed=1)
    assert objects.overtake == []
    after = all_objects(made.objects)
    assert {key: after[key] for key in before} == before
    check_usable(made, seed=0)


def test_a_name_pinned_anew_just_before_a_receipt_is_written_keeps_the_new_pin(made: MadeStore) -> None:
    objects = overtaken(made.objects, RECEIPT, lambda: pin_alpha(made, made.objects, seed=1))
    with pytest.raises(ManifestMismatch, match="has pinned teacher"):
        commit(made, objects, seed=0)
    assert committed_units(made.objects, "alpha") == set()
    check_usable(made, seed=1)


@dataclass(frozen=True, slots=True)
class After(StoreObjects):
    """A writer that others overtake, each right after one of its writes of `key`."""

    key: str = ""
    others: list[Callable[[], object]] = field(default_factory=list)

    def publish(self, key: str, data: bytes) -> bool:
        made = StoreObjects.publish(self, key, data)
        if key == self.key and self.others:
            self.others.pop(0)()
        return made


def test_a_name_pinned_anew_right_after_a_receipt_was_written_is_given_back(made: MadeStore) -> None:
    """The run that pins saw no unit when it began, and sees the receipt when its pin is written."""

    def repin() -> None:
        receipt = made.objects.read(RECEIPT)
        made.objects.remove(RECEIPT)
        put_back = [lambda: None, lambda: made.objects.publish(RECEIPT, receipt)]
        with pytest.raises(ManifestMismatch, match="has just committed a unit"):
            pin_alpha(made, overtaken(made.objects, PINNED, *put_back), seed=1)

    objects = After(made.objects.uri, made.objects.fs, made.objects.root, RECEIPT, [repin])
    commit(made, objects, seed=0)
    assert objects.others == []
    assert read_commit(made.objects, alpha(0), UNIT) is not None
    check_usable(made, seed=0)


def test_a_second_worker_that_pins_the_same_teacher_anew_finds_the_first_ones_units(made: MadeStore) -> None:
    def first_worker() -> None:
        pin_alpha(made, made.objects, seed=1)
        commit(made, made.objects, seed=1)

    pin_alpha(made, overtaken(made.objects, PINNED, first_worker), seed=1)
    check_usable(made, seed=1)
