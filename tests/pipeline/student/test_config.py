"""A student's file: what it needs, what it refuses, and that torch stays out of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softcask.pipeline.student.config import StudentConfig, load_student
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.losses.hard import HardLabels
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.storage_schemas.errors import ConfigError

VALID = """
store = "cask"
output = "out"

[transfer_set]
kind = "arrays"
inputs = "inputs.npy"

[model]
factory = "nets:small"
kwargs = { width = 8 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "student.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_student(write(folder, text), overrides)
    return [line.strip().replace(f"{folder}/", "") for line in str(error.value).splitlines()[1:]]


def test_a_student_file_names_what_is_needed_and_nothing_more(tmp_path: Path) -> None:
    config = load_student(write(tmp_path, VALID))
    assert config.store == str(tmp_path / "cask")
    assert config.output == str(tmp_path / "out")
    assert config.python_path == (str(tmp_path),)
    assert isinstance(config.transfer_set, ArraysOptions)
    assert config.model.kwargs == {"width": 8}
    assert config.evaluation is None
    assert isinstance(config.loss, Distillation)
    assert (config.targets.teachers, config.targets.rule, config.targets.temperature) == (None, "mean", 4.0)
    assert config.training.dtype == "auto"


def test_sections_by_kind_become_what_their_kind_says(tmp_path: Path) -> None:
    text = (
        VALID + '[loss]\nkind = "hard"\n[evaluation]\nkind = "arrays"\ninputs = "t.npy"\nlabels = "l.npy"\n'
    )
    config = load_student(write(tmp_path, text))
    assert isinstance(config.loss, HardLabels)
    assert isinstance(config.evaluation, ArraysOptions)
    assert config.evaluation.labels == str(tmp_path / "l.npy")


def test_overrides_take_the_place_of_the_files_values(tmp_path: Path) -> None:
    config = load_student(write(tmp_path, VALID), {"targets.temperature": 20, "output": "elsewhere"})
    assert config.targets.temperature == 20
    assert config.output == str(tmp_path / "elsewhere")


def test_a_config_survives_json_with_what_its_kinds_alone_know(tmp_path: Path) -> None:
    config = load_student(write(tmp_path, VALID + '[loss]\nkind = "distillation"\nhard_label_weight = 0.3\n'))
    assert config.model_dump(mode="json")["loss"] == {
        "kind": "distillation",
        "hard_label_weight": 0.3,
        "label_smoothing": 0.0,
    }
    assert StudentConfig.model_validate_json(config.model_dump_json()) == config


def test_all_problems_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    text = """store = "cask"
output = "s3://bucket/out"
rows = "some"

[transfer_set]
kind = "arrays"
inputs = "inputs.npy"

[evaluation]
kind = "arrays"
input = "t.npy"

[model]
factory = "nets.small"

[loss]
kind = "kl"

[targets]
rule = "median"
weights = [1, 0]
temperature = 0

[optimiser]
kind = "adam"
momentum = 0.9

[training]
epochs = 0
sede = 3
"""
    found = "\n".join(problems(tmp_path, text))
    for expected in (
        "student.toml:2: output: found 's3://bucket/out', expected a local folder",
        "student.toml:3: rows:",
        "student.toml:9: evaluation.inputs: field required",
        "student.toml:11: evaluation.input: unknown key; did you mean 'inputs'?",
        "student.toml:14: model.factory: expected 'module:function'",
        "student.toml:17: loss.kind: unknown loss kind 'kl'; known kinds: compressed_kl, distillation",
        "student.toml:20: targets.rule: unknown rule kind 'median'; known kinds: geometric, mean",
        "student.toml:21: targets.weights[1]: input should be greater than 0",
        "student.toml:22: targets.temperature: input should be greater than 0",
        "optimiser: momentum is sgd's; adam has its own",
        "student.toml:29: training.epochs: input should be greater than or equal to 1",
        "student.toml:30: training.sede: unknown key; did you mean 'seed'?",
    ):
        assert expected in found


@pytest.mark.parametrize("value", ["nan", "inf", "-1.0"])
def test_a_temperature_that_makes_no_sense_is_refused(tmp_path: Path, value: str) -> None:
    (found,) = problems(tmp_path, VALID + f"[targets]\ntemperature = {value}\n")
    assert "targets.temperature" in found


def test_a_warmup_without_a_cycle_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, VALID + "[optimiser]\nwarmup = 0.1\n")
    assert "warmup is one_cycle's; the schedule is constant" in found


def test_its_json_schema_can_be_made() -> None:
    assert StudentConfig.model_json_schema()["required"] == ["store", "output", "transfer_set", "model"]


def test_a_file_is_checked_without_torch_ray_or_teachers(tmp_path: Path) -> None:
    path = write(tmp_path, VALID + '[loss]\nkind = "logit_matching"\n[targets]\nrule = "geometric"\n')
    program = f"""
import sys
from softcask.pipeline.student.config import load_student
import softcask.pipeline.student
load_student({str(path)!r})
heavy = ("torch", "ray", "softcask.pipeline.teachers")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr
