"""`softcask ledger`, from runs to students and the account of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.jobs.conftest import Project
from tests.jobs.test_train import STUDENT
from typer.testing import Result

from softcask.storage_schemas.runs import RunRecord, StudentSavings

Softcask = Callable[..., Result]


@pytest.fixture
def student(softcask: Softcask, project: Project) -> str:
    assert softcask("precompute", project.run).exit_code == 0
    path = project.folder / "student.toml"
    path.write_text(STUDENT)
    assert softcask("train", str(path)).exit_code == 0
    return str(path)


def record_of(project: Project) -> RunRecord:
    (path,) = Path(project.store).glob("runs/*/run.json")
    return RunRecord.from_bytes(path.read_bytes(), path.name)


def test_students_are_added_up_by_the_prices_that_the_runs_recorded(
    softcask: Softcask, project: Project, student: str
) -> None:
    """Two students, of 3 and of 2 epochs, over 230 rows of two teachers."""
    second = softcask(
        "train", student, "--set", f"output={project.folder / 'other'}", "--set", "training.epochs=2"
    )
    assert second.exit_code == 0, second.stderr
    outputs = [str(project.folder / name) for name in ("student", "other")]
    told = json.loads(softcask("ledger", project.store, *outputs, outputs[0], "--json").stdout)
    spent = record_of(project).device_seconds
    assert told["spent_seconds"] == pytest.approx(sum(spent.values()))
    assert told["saved_seconds_a_pass"] == pytest.approx(2 * sum(spent.values()))
    assert told["saved_seconds_an_epoch"] == pytest.approx(5 * sum(spent.values()))
    for name in ("a", "b"):
        teacher = told["teachers"][name]
        assert (teacher["rows"], teacher["students"], teacher["rows_reused"]) == (230, 2, 460)
        assert teacher["times_reused"] == 2.0
        assert teacher["seconds_a_row"] == pytest.approx(spent[name] / 230)
    assert told["students"][outputs[1]]["saved_seconds_an_epoch"] == pytest.approx(2 * sum(spent.values()))


def test_the_account_is_shown_to_a_person(softcask: Softcask, project: Project, student: str) -> None:
    shown = softcask("ledger", project.store, str(project.folder / "student"))
    assert shown.exit_code == 0, shown.stderr
    for told in ("1.0 times", "at a pass a student", "at a pass an epoch", "spent"):
        assert told in shown.stdout


def test_without_students_what_was_spent_is_told(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    told = json.loads(softcask("ledger", project.store, "--json").stdout)
    assert told["students"] == {}
    assert told["teachers"]["a"]["device_seconds"] == record_of(project).device_seconds["a"]


def test_a_student_of_labels_alone_saved_nothing(softcask: Softcask, project: Project, student: str) -> None:
    output = project.folder / "hard"
    done = softcask("train", student, "--set", f"output={output}", "--set", "loss.kind=hard")
    assert done.exit_code == 0, done.stderr
    savings = StudentSavings.from_bytes((output / "savings.json").read_bytes(), "savings.json")
    assert savings.teachers == ()


def test_a_student_trained_before_there_were_savings_gets_them_when_trained_again(
    softcask: Softcask, project: Project, student: str
) -> None:
    path = project.folder / "student" / "savings.json"
    path.unlink()
    refused = softcask("ledger", project.store, str(path.parent))
    assert refused.exit_code == 2
    assert "run `softcask train` again" in " ".join(refused.stderr.split())
    assert softcask("train", student).exit_code == 0
    assert softcask("ledger", project.store, str(path.parent)).exit_code == 0


def test_a_student_of_another_store_is_refused(softcask: Softcask, project: Project, student: str) -> None:
    settings = ("--set", "store.uri=elsewhere", "--set", "classes.names=['v','w','x','y','z']")
    assert softcask("precompute", project.run, *settings).exit_code == 0
    refused = softcask("ledger", str(project.folder / "elsewhere"), str(project.folder / "student"))
    assert refused.exit_code == 2
    assert "another store" in refused.stderr


def test_a_damaged_savings_file_is_refused(softcask: Softcask, project: Project, student: str) -> None:
    path = project.folder / "student" / "savings.json"
    path.write_bytes(path.read_bytes().replace(b'"epochs": 3', b'"epochs": 9'))
    refused = softcask("ledger", project.store, str(path.parent))
    assert refused.exit_code == 2
    assert "savings.json has CRC-32C" in refused.stderr
