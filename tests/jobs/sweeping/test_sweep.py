"""`softcask sweep --serial`: many students from one store that nobody writes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.jobs.conftest import Project
from tests.worlds import identities_of, objects_of
from typer.testing import Result

Softcask = Callable[..., Result]
GRID = ["--grid", "targets.temperature=1,20"]


@pytest.fixture
def labelled(softcask: Softcask, project: Project, student: Path) -> str:
    """The student's file, over a store that is there."""
    assert softcask("precompute", project.run).exit_code == 0
    return str(student)


def test_ten_students_of_one_store_run_no_teacher_and_leave_every_byte_of_it_as_it_was(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    store = Path(project.store)
    before, written = objects_of(store), identities_of(store)
    runs = sorted((store / "runs").rglob("*"))
    grid = ["--grid", "targets.temperature=1,2,4,8,20", "--grid", "loss.hard_label_weight=0,0.5"]
    done = softcask("sweep", labelled, *grid, "--serial", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert len(answer["students"]) == 10 and answer["failed"] == 0
    assert {each["result"]["teacher_passes"] for each in answer["students"]} == {0}
    assert (objects_of(store), identities_of(store)) == (before, written)
    assert sorted((store / "runs").rglob("*")) == runs, "no run of a teacher was recorded"
    for each in answer["students"]:
        saved = json.loads(Path(each["output"], "savings.json").read_text())
        assert [used["teacher"] for used in saved["teachers"]] == ["a", "b"]
        assert {used["rows"] for used in saved["teachers"]} == {230}
        assert saved["epochs"] == 2
    assert Path(answer["plot"]).read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path(answer["output"], "sweep.json").read_text()) == answer


def test_each_student_is_the_one_that_train_makes_of_its_options(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    softcask("sweep", labelled, *GRID, "--serial")
    alone = softcask("train", labelled, "--set", "targets.temperature=20", "--set", "output=alone", "--json")
    swept = json.loads((project.folder / "student-sweep" / "temperature=20" / "result.json").read_text())
    assert swept["errors"] == json.loads(alone.stdout)["errors"]
    weights = load_file(project.folder / "alone" / "model.safetensors")
    others = load_file(project.folder / "student-sweep" / "temperature=20" / "model.safetensors")
    assert {name: value.tobytes() for name, value in weights.items()} == {
        name: value.tobytes() for name, value in others.items()
    }


def test_a_table_tells_what_was_varied_and_what_came_of_it(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    done = softcask(
        "sweep", labelled, *GRID, "--grid", "training.seed=0,1", "--serial", "--output", f"{project.folder}/o"
    )
    assert done.exit_code == 0, done.output
    assert all(head in done.stdout for head in ("temperature", "seeds", "test errors", "loss"))
    assert "fewest" in done.stdout and f"{project.folder}/o/sweep.png" in done.stdout
    assert (project.folder / "o" / "temperature=1,seed=1" / "model.safetensors").is_file()


def test_finished_students_are_not_trained_again(softcask: Softcask, project: Project, labelled: str) -> None:
    softcask("sweep", labelled, *GRID, "--serial")
    before = identities_of(project.folder / "student-sweep")
    again = softcask("sweep", labelled, "--grid", "targets.temperature=1,4,20", "--serial", "--json")
    trained = {each["name"]: each["trained_now"] for each in json.loads(again.stdout)["students"]}
    assert trained == {"temperature=1": False, "temperature=4": True, "temperature=20": False}
    after = identities_of(project.folder / "student-sweep")
    kept = {name for name in before if name.startswith("temperature=")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    anew = softcask("sweep", labelled, *GRID, "--serial", "--restart", "--json")
    assert all(each["trained_now"] for each in json.loads(anew.stdout)["students"])


def test_a_failing_student_ends_no_other_and_the_exit_code_says_so(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    grid = ["--grid", "model.factory=toy_models:net,toy_models:raising", "--set", "model.kwargs={}"]
    grid += ["--grid", "targets.temperature=1,4"]
    done = softcask("sweep", labelled, *grid, "--serial", "--json")
    assert done.exit_code == 2
    answer = json.loads(done.stdout)
    failed = [each["name"] for each in answer["students"] if each["error"]]
    assert len(failed) == 2 and all("toy_models_raising" in name for name in failed)
    assert sum(each["result"] is not None for each in answer["students"]) == 2
    assert (
        done.stderr.count("error: ") == 1 and "2 of 4 students failed; the others are trained" in done.stderr
    )
    assert "no such checkpoint on the moon" in done.stderr


def test_an_error_of_the_users_own_model_keeps_its_traceback_beside_the_student(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    broken = project.folder / "broken"
    broken.touch()
    grid = ["--set", "model.factory=toy_models:broken_while", "--grid", "targets.temperature=1,4"]
    grid += ["--set", f"model.kwargs={{ row = 100, file = '{broken}' }}"]
    done = softcask("sweep", labelled, *grid, "--serial")
    assert done.exit_code == 2
    folder = project.folder / "student-sweep" / "temperature=1"
    assert f"RuntimeError: no device for row 100 (its traceback is in {folder}/error.txt)" in done.stderr
    assert "toy_models.py" in (folder / "error.txt").read_text()
    broken.unlink()
    mended = softcask("sweep", labelled, *grid, "--serial")
    assert mended.exit_code == 0, mended.output
    assert not (folder / "error.txt").exists()


def test_a_killed_sweep_goes_on_at_the_checkpoint_of_the_student_that_was_in_training(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    # Four batches an epoch: the second student dies in the second of its two epochs.
    died = project.folder / "died"
    grid = ["--grid", "training.seed=5,6,7", "--set", "model.factory=toy_models:deadly_once", "--serial"]
    grid += ["--set", f"model.kwargs={{ file = '{died}', batch = 6 }}"]
    grid += ["--set", "training.num_threads=1"]  # sums of two threads have other last bits than those of one
    command = [sys.executable, "-m", "softcask.jobs.cli", "sweep", labelled, *grid]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    swept = project.folder / "student-sweep"
    assert sorted(path.name for path in swept.glob("*/checkpoint.safetensors")) == ["checkpoint.safetensors"]
    done = softcask("sweep", labelled, *grid)
    assert done.exit_code == 0, done.output
    assert "seed=5: going on after epoch 1 of 2" in done.stderr
    undisturbed = softcask("sweep", labelled, *grid, "--output", str(project.folder / "undisturbed"))
    assert undisturbed.exit_code == 0, undisturbed.output
    for seed in ("seed=5", "seed=6", "seed=7"):
        weights = load_file(swept / seed / "model.safetensors")
        others = load_file(project.folder / "undisturbed" / seed / "model.safetensors")
        assert {n: v.tobytes() for n, v in weights.items()} == {n: v.tobytes() for n, v in others.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to vary"),
        (["--grid", "targets.temperature=4,-1"], "1 of 2 students are not valid"),
        (["--grid", "training.seed=0,1", "--set", "output=x"], "the folder is given by --output"),
    ],
)
def test_what_makes_no_sweep_ends_in_one_message_before_anything_is_trained(
    softcask: Softcask, project: Project, labelled: str, arguments: list[str], message: str
) -> None:
    refused = softcask("sweep", labelled, *arguments, "--serial")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert message in refused.stderr and refused.stderr.count("error: ") == 1
    assert not (project.folder / "student-sweep").exists()


def test_an_output_that_cannot_be_made_is_refused_before_anything_is_trained(
    softcask: Softcask, project: Project, labelled: str
) -> None:
    refused = softcask("sweep", labelled, *GRID, "--serial", "--output", str(project.folder / "inputs.npy"))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"cannot make the output folder {project.folder}/inputs.npy" in refused.stderr


def test_where_all_fail_none_is_said_to_be_trained(softcask: Softcask, labelled: str) -> None:
    refused = softcask("sweep", labelled, *GRID, "--serial", "--set", "store=gone")
    assert refused.exit_code == 2
    assert "2 of 2 students failed. Run the same" in refused.stderr and "no softcask store" in refused.stderr


def test_another_training_in_a_students_folder_is_that_students_failure(
    softcask: Softcask, labelled: str
) -> None:
    softcask("sweep", labelled, *GRID, "--serial")
    refused = softcask("sweep", labelled, *GRID, "--serial", "--set", "training.epochs=3")
    assert refused.exit_code == 2
    assert "was made by another training" in refused.stderr and "--restart" in refused.stderr


def test_a_students_install_sweeps_serially_and_says_what_the_rest_needs(
    softcask: Softcask, project: Project, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "softcask.jobs.sweeping.on_ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused = softcask("sweep", labelled, *GRID)
    assert refused.exit_code == 2 and "pip install 'softcask[engine]'" in refused.stderr
    assert "--serial" in refused.stderr
    done = softcask("sweep", labelled, *GRID, "--serial", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["plot"] is None
    assert "no plot is drawn: matplotlib is not installed; pip install 'softcask[report]'" in done.stderr
