from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from softcask.pipeline.precompute.classes import with_classes
from softcask.pipeline.precompute.config import RunConfig
from softcask.storage_schemas.errors import ConfigError, TeacherError


def model(folder: Path, labels: dict[int, str]) -> dict[str, Any]:
    """A teacher whose model names its outputs; nothing of it is ever loaded."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": labels}))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"never read")
    return {
        "name": folder.name,
        "kind": "transformers",
        "model": str(folder),
        "task": "sequence-classification",
    }


def run(classes: dict[str, Any], *teachers: dict[str, Any]) -> RunConfig:
    raw = {
        "store": {"uri": "never-made"},
        "transfer_set": {"kind": "arrays", "inputs": "rows.npy"},
        "classes": classes,
        "teachers": teachers,
    }
    return RunConfig.model_validate(raw)


def test_a_run_that_names_its_classes_is_left_as_it_is(tmp_path: Path) -> None:
    config = run({"names": ["a", "b"]}, model(tmp_path / "one", {0: "x", 1: "y"}))
    assert with_classes(config) is config


def test_a_teachers_model_names_the_classes_in_its_order(tmp_path: Path) -> None:
    # As JSON has them: keys are text, and "10" stands before "2" where text is sorted.
    labels = {index: f"class {index}" for index in (10, 2, 0, 1, *range(3, 10))}
    config = run({"from_teacher": "one"}, model(tmp_path / "one", labels))
    assert with_classes(config).classes.class_names == tuple(f"class {index}" for index in range(11))


def test_a_class_map_of_that_teacher_is_kept_to(tmp_path: Path) -> None:
    one = model(tmp_path / "one", {0: "cat", 1: "dog", 2: "emu"})
    for class_map in ([2, 0], ["emu", "cat"]):
        config = with_classes(run({"from_teacher": "one"}, {**one, "class_map": class_map}))
        assert config.classes.class_names == ("emu", "cat")


def test_names_that_two_outputs_share_get_their_numbers(tmp_path: Path) -> None:
    config = run({"from_teacher": "one"}, model(tmp_path / "one", {0: "crane", 1: "tench", 2: "crane"}))
    assert with_classes(config).classes.class_names == ("crane (0)", "tench", "crane (2)")


def test_by_name_becomes_the_names_of_the_run(tmp_path: Path) -> None:
    one = model(tmp_path / "one", {0: "cat", 1: "dog"})
    other = model(tmp_path / "other", {0: "dog", 1: "emu", 2: "cat"}) | {"class_map": "by_name"}
    for classes in ({"from_teacher": "one"}, {"names": ["cat", "dog"]}):
        config = with_classes(run(classes, one, other))
        assert [getattr(each, "class_map", None) for each in config.teachers] == [None, ("cat", "dog")]
        assert with_classes(config) is config


@pytest.mark.parametrize("class_map", ["by_name", ["cat", "dog", "eel"]])
def test_a_name_that_no_output_has_is_refused_before_anything_is_done(class_map: Any, tmp_path: Path) -> None:
    one = model(tmp_path / "one", {0: "cat", 1: "dog", 2: "emu"}) | {"class_map": class_map}
    with pytest.raises(TeacherError, match="teacher 'one': 1 of 3 classes are no output of the model: 'eel'"):
        with_classes(run({"names": ["cat", "dog", "eel"]}, one))


def test_by_name_needs_names(tmp_path: Path) -> None:
    one = model(tmp_path / "one", {0: "cat", 1: "dog"}) | {"class_map": "by_name"}
    with pytest.raises(ConfigError, match="'one': class_map = .*has count alone: state names"):
        with_classes(run({"count": 2}, one))


def test_a_model_that_names_nothing_cannot_name_classes(tmp_path: Path) -> None:
    config = run({"from_teacher": "one"}, model(tmp_path / "one", {0: "LABEL_0", 1: "LABEL_1"}))
    with pytest.raises(TeacherError, match="teacher 'one': .*does not name its outputs"):
        with_classes(config)


def test_files_that_cannot_be_had_name_the_teacher(tmp_path: Path) -> None:
    one = model(tmp_path / "one", {0: "cat", 1: "dog"})
    (tmp_path / "one" / "config.json").write_text("{")
    with pytest.raises(TeacherError, match="teacher 'one': .*config.json cannot be read as JSON"):
        with_classes(run({"from_teacher": "one"}, one))


def test_a_teacher_that_is_not_there_cannot_name_classes(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="classes.from_teacher is 'two', expected one of one"):
        run({"from_teacher": "two"}, model(tmp_path / "one", {0: "cat", 1: "dog"}))
