"""Which teachers are combined, with which weights, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.store.rows import Rows
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.errors import ConfigError, StoreError, UnknownKind
from softcask.storage_schemas.manifest import CodecSpec


@dataclass
class FakeTeacher:
    role: str = "member"
    kind: str = "torch"
    num_classes: int = 10
    codec: CodecSpec = CodecSpec(name="dense16")  # noqa: RUF009  # frozen


class FakeStore:
    uri = "memory://cask"
    class_names = tuple("0123456789")
    rows: Rows
    segments = ()

    def __init__(self, teachers: Mapping[str, FakeTeacher]) -> None:
        self.teachers = teachers
        random = np.random.default_rng(3)
        self.kept = {
            name: (random.normal(size=(30, teacher.num_classes)) * 9).astype(np.float32)
            for name, teacher in teachers.items()
        }

    def logits(self, teacher: str, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.kept[teacher][rows_B]

    def logits_at(self, teacher: str, rows_B: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """What a codec gives that keeps no raw logits: right at this temperature, up to a shift."""
        logits_BC = self.kept[teacher][rows_B]
        return logits_BC - logits_BC.max(axis=1, keepdims=True)

    def missing_units(self, teacher: str) -> list[tuple[str, int]]:
        return []


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({"b": FakeTeacher(), "a": FakeTeacher(), "all": FakeTeacher(role="generalist")})


ROWS = np.array([7, 3, 3, 29])


def softmax64(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def test_without_names_all_members_count_equally_and_no_generalist(store: FakeStore) -> None:
    targets = SoftTargets(store)
    assert targets.teachers == ("a", "b")
    expected = (softmax64(store.kept["a"][ROWS] / 4) + softmax64(store.kept["b"][ROWS] / 4)) / 2
    np.testing.assert_allclose(targets.probabilities(ROWS, 4), expected, atol=1e-6)


def test_weights_of_any_sum_are_normalised_in_the_order_of_the_names(store: FakeStore) -> None:
    targets = SoftTargets(store, ["all", "b"], "mean", [3, 1])
    expected = 0.75 * softmax64(store.kept["all"][ROWS]) + 0.25 * softmax64(store.kept["b"][ROWS])
    np.testing.assert_allclose(targets.probabilities(ROWS, 1), expected, atol=1e-6)
    np.testing.assert_allclose(
        targets.logits(ROWS), 0.75 * store.kept["all"][ROWS] + 0.25 * store.kept["b"][ROWS], atol=1e-5
    )


def test_an_unknown_teacher_is_refused_with_the_known_ones(store: FakeStore) -> None:
    with pytest.raises(ConfigError, match="has no teacher c; its teachers: b, a, all"):
        SoftTargets(store, ["a", "c"])


def test_a_teacher_named_twice_is_refused(store: FakeStore) -> None:
    with pytest.raises(ConfigError, match="named twice: a"):
        SoftTargets(store, ["a", "b", "a"])


def test_a_store_without_members_asks_for_names() -> None:
    with pytest.raises(StoreError, match=r"no teacher of role member.*Its teachers: g"):
        SoftTargets(FakeStore({"g": FakeTeacher(role="generalist")}))


def test_without_names_a_derived_entry_does_not_count_beside_what_it_was_made_from() -> None:
    teachers = {"a": FakeTeacher(), "a8": FakeTeacher(kind="derived"), "b": FakeTeacher(kind="imported")}
    assert SoftTargets(FakeStore(teachers)).teachers == ("a", "b")
    assert SoftTargets(FakeStore(teachers), ["a8"]).teachers == ("a8",)


def test_a_teacher_over_other_classes_is_refused_by_name() -> None:
    store = FakeStore({"a": FakeTeacher(), "birds": FakeTeacher(role="specialist", num_classes=4)})
    with pytest.raises(StoreError, match=r"has 10 classes.*birds \(4\)"):
        SoftTargets(store, ["a", "birds"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "1 weights for 2 teachers"), ([1.0, 0.0], "above 0"), ([1.0, float("nan")], "above 0")],
)
def test_weights_that_do_not_fit_are_refused(store: FakeStore, weights: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SoftTargets(store, ["a", "b"], "mean", weights)


def test_an_unknown_rule_is_refused_before_anything_is_read(store: FakeStore) -> None:
    with pytest.raises(UnknownKind, match="median"):
        SoftTargets(store, rule="median")


def test_a_cold_temperature_of_zero_is_refused(store: FakeStore) -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        SoftTargets(store).probabilities(ROWS, 0)


@pytest.mark.parametrize("temperature", [0.4, 25])
def test_a_temperature_that_the_codec_makes_no_claim_for_is_refused(
    store: FakeStore, temperature: float
) -> None:
    with pytest.raises(StoreError, match=r"teacher 'a'.*dense16 is good for 0.5 to 20"):
        SoftTargets(store).probabilities(ROWS, temperature)
