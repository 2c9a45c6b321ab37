from __future__ import annotations

import pytest

from softcask.pipeline.teachers.outputs import (
    check_class_map,
    kept_outputs,
    shown_names,
    with_short_names,
)
from softcask.storage_schemas.errors import ConfigError, TeacherError

IMAGENET = with_short_names(
    ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane, machine", "tiger cat", "maillot"]
)


def test_without_a_class_map_outputs_stay_as_they_come() -> None:
    assert kept_outputs(None, IMAGENET) is None


def test_numbers_are_taken_as_they_are() -> None:
    assert kept_outputs((3, 0), None) == (3, 0)


def test_names_find_outputs_in_the_order_in_which_they_are_named() -> None:
    assert kept_outputs(("maillot", "tench, Tinca tinca", "tiger cat"), IMAGENET) == (5, 0, 4)


def test_a_synonym_finds_its_output() -> None:
    assert kept_outputs(("goldfish", "Tinca tinca"), IMAGENET) == (1, 0)


def test_a_name_in_full_goes_before_synonyms() -> None:
    assert kept_outputs(("crane", "machine"), IMAGENET) == (2, 3)


def test_what_is_missing_is_listed_with_what_is_near() -> None:
    wanted = ("tench", "tiger_cat", "zebra", "gold fish", "x1", "x2", "x3")
    with pytest.raises(TeacherError) as caught:
        kept_outputs(wanted, IMAGENET)
    message = str(caught.value)
    assert message.startswith("6 of 7 classes are no output of the model: 'tiger_cat' (near: 'tiger cat'), ")
    assert "'zebra'," in message and "'gold fish' (near: 'goldfish" in message and "and 2 more" in message
    assert "by number, in class_map" in message


def test_a_name_of_two_outputs_is_refused_with_their_numbers() -> None:
    with pytest.raises(TeacherError, match="'crane' is the name of outputs 0, 1"):
        kept_outputs(("crane", "maillot"), [("crane",), ("crane",), ("maillot",)])


def test_two_names_of_one_output_are_refused() -> None:
    with pytest.raises(TeacherError, match="'goldfish', 'Carassius auratus' are one output.* number 1"):
        kept_outputs(("goldfish", "crane", "Carassius auratus"), IMAGENET)


def test_names_need_a_model_that_names_its_outputs() -> None:
    with pytest.raises(TeacherError, match="does not name its outputs; list their numbers"):
        kept_outputs(("a", "b"), None)


def test_by_name_is_for_runs_alone() -> None:
    with pytest.raises(TeacherError, match=r"a run's \[classes\]"):
        kept_outputs("by_name", IMAGENET)


def test_outputs_that_share_a_name_are_shown_with_their_numbers() -> None:
    names = [("crane", "n02012849"), ("crane", "n03126707"), ("tench",)]
    assert shown_names(names) == ("crane (0)", "crane (1)", "tench")
    assert kept_outputs(("n03126707", "n02012849"), names) == (1, 0)


@pytest.mark.parametrize("class_map", [None, "by_name", (0, 2), ("a", "b")])
def test_class_maps_that_make_sense_pass(class_map: object) -> None:
    check_class_map(class_map)  # type: ignore[arg-type]


@pytest.mark.parametrize("class_map", [(), (-1,), (1, 1), ("a", "a")])
def test_class_maps_that_make_no_sense_are_refused(class_map: object) -> None:
    with pytest.raises(ConfigError, match="class_map"):
        check_class_map(class_map)  # type: ignore[arg-type]
