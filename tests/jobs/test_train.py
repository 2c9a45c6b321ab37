"""`softcask train`: from a store to a student, without a teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests import toy_models
from tests.jobs.conftest import STUDENT_FILE, Project
from typer.testing import Result

Softcask = Callable[..., Result]

STUDENT = f"""{STUDENT_FILE}
[training]
epochs = 3
batch_size = 32
dtype = "float32"
evaluate_every_epoch = true
"""


@pytest.fixture
def student(softcask: Softcask, project: Project) -> str:
    softcask("precompute", project.run)
    path = project.folder / "student.toml"
    path.write_text(STUDENT)
    return str(path)


def test_a_student_is_trained_and_its_errors_are_those_of_its_weights(
    softcask: Softcask, project: Project, student: str
) -> None:
    done = softcask("train", student, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["epochs"], result["rows"], result["temperature"], result["teacher_passes"]) == (
        3,
        230,
        4,
        0,
    )
    model = toy_models.net(9, hidden=8)
    model.load_state_dict(load_file(project.folder / "student" / "model.safetensors"))
    with torch.inference_mode():
        guesses = model(torch.from_numpy(np.load(project.folder / "inputs.npy"))).argmax(1).numpy()
    assert result["errors"] == int((guesses != np.load(project.folder / "labels.npy")).sum())
    assert len(result["errors_by_epoch"]) == 3


def test_a_table_tells_errors_seconds_and_that_no_teacher_ran(softcask: Softcask, student: str) -> None:
    done = softcask("train", student)
    assert all(head in done.stdout for head in ("test errors", "seconds", "teacher passes"))
    assert "of 230" in done.stdout and "230 rows, from the soft targets of a, b" in done.stdout
    assert "after epoch 1: " in done.stderr and "test errors" in done.stderr


def test_a_student_of_labels_alone_is_not_said_to_have_learnt_from_teachers(
    softcask: Softcask, student: str
) -> None:
    done = softcask("train", student, "--set", "loss.kind=hard")
    assert "230 rows, from labels alone" in done.stdout and "soft targets" not in done.stdout


@pytest.mark.parametrize("codec", ["topk", "lowrank"])
def test_a_student_of_columns_makes_the_errors_of_one_of_decoded_soft_targets(
    softcask: Softcask, project: Project, student: str, codec: str
) -> None:
    done = softcask("precompute", project.run, "--set", f"store.codec={codec}", "--set", "store.uri=other")
    assert done.exit_code == 0, done.stderr
    of = ["--set", "store=other", "--set", "targets.teachers=['a']", "--json"]
    one, other = (
        json.loads(softcask("train", student, *of, *sets).stdout)
        for sets in (
            ("--set", "loss.kind=distillation", "--set", "output=dense"),
            ("--set", "loss.kind=compressed_kl", "--set", "output=straight"),
        )
    )
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert other["errors"] == pytest.approx(one["errors"], abs=1)


def test_a_students_bias_is_mended_where_the_file_says_so(
    softcask: Softcask, project: Project, student: str
) -> None:
    inputs, labels = (np.load(project.folder / f"{name}.npy") for name in ("inputs", "labels"))
    np.save(project.folder / "held_out.npy", inputs + np.float32(0.25))
    np.save(project.folder / "held_out_labels.npy", labels)
    section = '{classes=[2],held_out={kind="arrays",inputs="held_out.npy",labels="held_out_labels.npy"}}'
    done = softcask("train", student, "--set", f"bias_correction={section}")
    assert done.exit_code == 0, done.stderr
    facts = json.loads((project.folder / "student" / "result.json").read_text())["bias_correction"]
    assert facts["parameter"].endswith("bias")
    assert f"fitted to {len(labels)} held-out rows" in done.stdout
    assert facts["parameter"] in done.stdout.replace("\n", "")


def test_a_finished_training_is_known_again_and_can_be_begun_anew(softcask: Softcask, student: str) -> None:
    first = json.loads(softcask("train", student, "--json").stdout)
    again = softcask("train", student, "--json")
    assert json.loads(again.stdout) == first
    assert "already trained" in again.stderr
    anew = softcask("train", student, "--restart", "--json")
    assert "already trained" not in anew.stderr
    assert json.loads(anew.stdout)["errors"] == first["errors"]


def test_another_training_in_the_same_output_is_refused(softcask: Softcask, student: str) -> None:
    softcask("train", student)
    refused = softcask("train", student, "--set", "targets.temperature=20")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "temperature" in refused.stderr and refused.stderr.count("error: ") == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("store=gone", "there is no softcask store at"),
        ("targets.teachers=['z']", "has no teacher z; its teachers: a, b"),
        ("model.kwargs={classes=4}", "gives logits of shape [2, 4], expected [2, 5]"),
        ("loss.kind=guess", "unknown loss kind 'guess'"),
        ("training.epoch=3", "unknown key; did you mean 'epochs'?"),
    ],
)
def test_mistakes_end_in_one_message(softcask: Softcask, student: str, setting: str, message: str) -> None:
    refused = softcask("train", student, "--set", setting)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert message in refused.stderr and refused.stderr.count("error: ") == 1


def test_inputs_that_are_not_those_of_the_store_are_refused(
    softcask: Softcask, project: Project, student: str
) -> None:
    inputs = np.load(project.folder / "inputs.npy")
    np.save(project.folder / "inputs.npy", np.roll(inputs, 1, axis=0))
    refused = softcask("train", student)
    assert refused.exit_code == 2
    assert "32 of the 32 rows of a batch have other content here than the teachers saw" in refused.stderr


def test_the_store_may_move(softcask: Softcask, project: Project, student: str) -> None:
    shutil.move(project.store, project.folder / "moved")
    done = softcask("train", student, "--set", "store=moved", "--json")
    assert json.loads(done.stdout)["teachers"] == ["a", "b"]
    assert Path(project.folder, "student", "result.json").is_file()
