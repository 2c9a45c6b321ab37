from __future__ import annotations

import numpy as np
import pytest

from softcask.pipeline.teachers.checks import (
    PROBE_TOLERANCE,
    check_logits,
    compare_probe,
    near_chance,
    probe_positions,
)
from softcask.storage_schemas.errors import ManifestMismatch, TeacherError

IDS = [f"row-{index}" for index in range(4)]


def checked(logits_BC: np.ndarray, num_classes: int = 3) -> None:
    check_logits(
        logits_BC.astype(np.float32), num_classes=num_classes, teacher="cnn-a", unit="u-7", sample_ids=IDS
    )


def test_finite_logits_of_the_right_shape_pass_however_large() -> None:
    checked(np.full((4, 3), np.finfo(np.float32).max))
    checked(np.full((4, 3), np.finfo(np.float32).min))


@pytest.mark.parametrize("shape", [(4, 5), (4, 2), (3, 3), (12,)])
def test_a_wrong_class_or_row_count_names_teacher_unit_and_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError) as caught:
        checked(np.zeros(shape))
    message = str(caught.value)
    assert message.startswith(
        f"teacher 'cnn-a', unit u-7: expected logits of shape [4, 3], found {list(shape)}"
    )
    assert "The store has 3 classes" in message and "class_map" in message


def test_logits_that_are_no_numbers_are_counted_and_the_first_row_is_named() -> None:
    logits_BC = np.zeros((4, 3))
    logits_BC[3, 0] = np.nan
    logits_BC[1, 2] = -np.inf
    logits_BC[1, 1] = np.inf
    with pytest.raises(TeacherError) as caught:
        checked(logits_BC)
    assert str(caught.value).startswith(
        "teacher 'cnn-a', unit u-7: 1 NaN and 2 infinite logits in 2 of 4 rows, first in row 'row-1', "
        "class 1: inf. Look at that row"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 2)])
def test_a_single_unusable_logit_is_found_wherever_it_is(value: float, place: tuple[int, int]) -> None:
    logits_BC = np.ones((4, 3))
    logits_BC[place] = value
    with pytest.raises(TeacherError, match=f"first in row 'row-{place[0]}', class {place[1]}: {value}"):
        checked(logits_BC)


def test_probe_rows_are_spread_evenly() -> None:
    positions = probe_positions(64000)
    assert positions.dtype == np.int64
    np.testing.assert_array_equal(positions, np.arange(32) * 2000)


def test_probe_rows_are_readable_ones() -> None:
    readable = np.zeros(1000, dtype=bool)
    readable[500:] = True
    positions = probe_positions(1000, readable)
    assert len(positions) == len(set(positions)) == 32
    assert positions.min() == 500 and positions.max() >= 980
    assert set(np.diff(positions)) == {15, 16}


@pytest.mark.parametrize(("readable", "expected"), [([False, True, False, True], [1, 3]), ([False] * 4, [])])
def test_few_readable_rows_are_all_probed(readable: list[bool], expected: list[int]) -> None:
    assert probe_positions(4, np.array(readable)).tolist() == expected
    assert probe_positions(0).tolist() == []


# Their standard deviation is 2, as numpy's own `std` says; so .01 is a two-hundredth of it.
STORED_PC = np.array([[1.0, 5.0], [5.0, 1.0]])


def test_probe_logits_within_the_tolerance_pass() -> None:
    compare_probe(STORED_PC, STORED_PC.astype(np.float32), teacher="a")
    compare_probe(STORED_PC, STORED_PC + 0.0019, teacher="a", tolerance=1e-3)
    compare_probe(STORED_PC.astype(np.float16), STORED_PC - 0.09, teacher="a", tolerance=5e-2)


def test_probe_logits_beyond_the_tolerance_say_which_and_what_to_do() -> None:
    fresh_PC = STORED_PC.copy()
    fresh_PC[1, 0] += 0.01
    with pytest.raises(ManifestMismatch) as caught:
        compare_probe(STORED_PC, fresh_PC, teacher="cnn-a", tolerance=1e-3)
    message = str(caught.value)
    assert message.startswith(
        "teacher 'cnn-a': its fingerprint is the one that the store has, but its logits are not"
    )
    for part in [
        "probe row 1 of 2",
        "0.005 standard deviations",
        "0.001 is allowed",
        "another library version",
    ]:
        assert part in message
    assert "new name" in message and "code_version" in message
    compare_probe(STORED_PC, fresh_PC, teacher="cnn-a", tolerance=6e-3)


def test_probe_logits_of_another_shape_or_no_numbers_never_pass() -> None:
    with pytest.raises(ManifestMismatch, match=r"of shape \[2, 2\] when it was first run, now \[2, 3\]"):
        compare_probe(STORED_PC, np.zeros((2, 3)), teacher="a")
    for value in (np.nan, np.inf):
        with pytest.raises(ManifestMismatch):
            compare_probe(STORED_PC, np.where(STORED_PC > 3, value, STORED_PC), teacher="a", tolerance=1e9)


def test_constant_probe_logits_may_differ_by_rounding_only() -> None:
    constant = np.full((2, 2), 1000.0)
    compare_probe(constant, constant + 1e-4, teacher="a")
    compare_probe(np.zeros((2, 2)), np.zeros((2, 2)), teacher="a")
    with pytest.raises(ManifestMismatch):
        compare_probe(constant, constant + 1, teacher="a")
    with pytest.raises(ManifestMismatch):
        compare_probe(np.zeros((2, 2)), np.full((2, 2), 1e-3), teacher="a")


def test_no_probe_rows_are_no_difference() -> None:
    compare_probe(np.zeros((0, 10)), np.zeros((0, 10)), teacher="a")


def test_lower_precision_is_allowed_more() -> None:
    assert PROBE_TOLERANCE["float32"] < PROBE_TOLERANCE["float16"] < PROBE_TOLERANCE["bfloat16"] < 0.1


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("labelled", [1000, 60000])
def test_guessing_is_near_chance(num_classes: int, labelled: int) -> None:
    guesses = np.random.default_rng(0).binomial(labelled, 1 / num_classes, size=1000)
    assert np.mean([near_chance(int(correct), labelled, num_classes) for correct in guesses]) > 0.97


def test_a_perfect_teacher_with_its_classes_in_another_order_is_near_chance() -> None:
    labels = np.arange(1000) % 10
    order = np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 1])
    assert near_chance(int((order[labels] == labels).sum()), 1000, 10)
    assert near_chance(0, 1000, 2)


@pytest.mark.parametrize(
    ("correct", "labelled", "num_classes"),
    [(600, 1000, 2), (450, 1000, 3), (250, 1000, 10), (50, 1000, 100), (10, 1000, 1000), (59000, 60000, 10)],
)
def test_a_weak_teacher_is_not_near_chance(correct: int, labelled: int, num_classes: int) -> None:
    assert not near_chance(correct, labelled, num_classes)


def test_too_few_labels_say_nothing() -> None:
    assert not near_chance(0, 0, 10)
    assert not near_chance(1, 19, 10)
    assert near_chance(1, 20, 10)
    assert not near_chance(50, 50, 1)
