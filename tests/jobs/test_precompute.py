"""`softcask plan` and `softcask precompute`, on a small world."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests import toy_models
from tests.jobs.conftest import Project
from tests.jobs.test_cli import SCRIPT
from tests.worlds import identities_of, objects_of, write_rows
from typer.testing import Result

Softcask = Callable[..., Result]


def right_answers(folder: Path, seed: int) -> int:
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    with torch.inference_mode():
        guesses = toy_models.net(seed)(inputs * 0.5).argmax(1).numpy()
    return int((guesses == np.load(folder / "labels.npy")).sum())


def test_a_plan_tells_what_is_to_do_and_writes_nothing(softcask: Softcask, project: Project) -> None:
    told = softcask("plan", project.run, "--json")
    assert told.exit_code == 0, told.stderr
    plan = json.loads(told.stdout)
    assert (plan["rows"], plan["unit_rows"]) == (230, 32)
    assert {name: (t["units"], t["committed"], t["rows"]) for name, t in plan["teachers"].items()} == {
        "a": (8, 0, 230),
        "b": (8, 0, 230),
    }
    assert plan["free_bytes"] > 0
    assert not Path(project.store).exists()
    assert "rows to do" in softcask("plan", project.run).stdout


def test_precompute_labels_all_rows_and_says_how_right_each_teacher_is(
    softcask: Softcask, project: Project
) -> None:
    done = softcask("precompute", project.run, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    for name, seed in (("a", 0), ("b", 1)):
        teacher = summary["teachers"][name]
        assert (teacher["rows"], teacher["new_rows"], teacher["units"]) == (230, 230, 8)
        assert teacher["correct"] == right_answers(project.folder, seed)
    assert Path(project.store, "runs", summary["run"], "run.json").is_file()


def test_teachers_near_chance_are_warned_of_on_stderr(softcask: Softcask, project: Project) -> None:
    done = softcask("precompute", project.run)
    share = right_answers(project.folder, 0) / 230
    assert f"{share:.2%} of 230" in done.stdout
    assert (
        f"warning: teacher 'a' is right on {share:.2%} of 230 labelled rows, which is near chance"
        in done.stderr
    )


def test_a_second_run_does_no_teacher_pass_and_says_so(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    before = identities_of(Path(project.store))
    again = softcask("precompute", project.run)
    assert again.exit_code == 0
    assert "nothing to do: all 16 units of 2 teachers are committed; no teacher pass" in again.stdout
    assert identities_of(Path(project.store)) == before
    planned = softcask("plan", project.run)
    assert "nothing to do: all units of 2 teachers are committed" in planned.stdout


def test_rows_that_cannot_be_read_are_counted_and_their_reasons_can_be_looked_up(
    softcask: Softcask, project: Project
) -> None:
    write_rows(project.folder, unreadable=(3, 40))
    done = softcask("precompute", project.run)
    table = f"{project.store}/transfer_set/s0000/rows.parquet"
    assert "warning: 2 rows could not be read" in done.stderr and table in done.stderr
    reasons = pd.read_parquet(table)["quarantine"].dropna()
    assert list(reasons.index) == [3, 40]


def test_what_a_teacher_prints_does_not_spoil_the_json(softcask: Softcask, project: Project) -> None:
    (project.folder / "talkative_teacher.py").write_text(
        "import toy_models\ndef net():\n    print('hello')\n    return toy_models.net()\n"
    )
    project.edit('python_path = ["', 'python_path = [".", "')
    project.edit("toy_models:net", "talkative_teacher:net")
    done = softcask("precompute", project.run, "--json")
    assert "hello" in done.stderr
    assert json.loads(done.stdout)["teachers"]["a"]["rows"] == 230


def test_the_installed_command_makes_the_same_store(softcask: Softcask, project: Project) -> None:
    softcask("precompute", project.run)
    command = [SCRIPT, "precompute", project.run, "--set", "store.uri=other"]
    subprocess.run(command, check=True, capture_output=True)
    assert objects_of(project.folder / "other") == objects_of(Path(project.store))


@pytest.mark.parametrize("setting", ["executor.in_flight=1", "teachers[1].role=generalist"])
def test_settings_stand_in_place_of_the_files(softcask: Softcask, project: Project, setting: str) -> None:
    done = softcask("precompute", project.run, "--set", setting)
    assert done.exit_code == 0, done.stderr
    manifest = json.loads(Path(project.store, "teachers/b/teacher.json").read_text())
    assert manifest["role"] == ("generalist" if "role" in setting else "member")
