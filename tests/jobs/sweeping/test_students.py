"""From a sweep's file or --grid to its students: which, called what, refused when."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcask.jobs.sweeping.config import load_sweep
from softcask.jobs.sweeping.students import Student, plan_students
from softcask.storage_schemas.errors import ConfigError


def planned(file: Path, *grid: str, **settings: object) -> dict[str, Student]:
    return {each.name: each for each in plan_students(load_sweep(file, grid=grid), settings)}


def sweep_file(student: Path, text: str) -> Path:
    path = student.with_name("sweep.toml")
    path.write_text(f'student = "student.toml"\n{text}')
    return path


def test_every_combination_is_a_student_with_its_own_folder(student: Path) -> None:
    found = planned(student, "targets.temperature=1,4", "loss.hard_label_weight=0,0.5")
    assert list(found) == [
        "temperature=1,hard_label_weight=0",
        "temperature=1,hard_label_weight=0.5",
        "temperature=4,hard_label_weight=0",
        "temperature=4,hard_label_weight=0.5",
    ]
    one = found["temperature=4,hard_label_weight=0.5"].config
    assert one.targets.temperature == 4 and one.loss.model_dump()["hard_label_weight"] == 0.5
    assert one.output == str(student.parent / "student-sweep" / "temperature=4,hard_label_weight=0.5")
    assert one.training.epochs == 2 and one.store == str(student.parent / "cask")


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("model.kwargs.hidden=[8],[16, 16]", ["hidden=8", "hidden=16x16"]),
        ("optimiser.kind=adam,sgd", ["kind=adam", "kind=sgd"]),
        ("loss={kind = 'hard'},{kind = 'distillation'}", ["loss=hard", "loss=distillation"]),
        ("optimiser.lr=1e-3,1e-4", ["lr=0.001", "lr=0.0001"]),
        ("targets.temperature=1.0,2.5", ["temperature=1", "temperature=2.5"]),
        (
            "training.evaluate_every_epoch=true,false",
            ["evaluate_every_epoch=true", "evaluate_every_epoch=false"],
        ),
    ],
)
def test_values_of_any_kind_have_short_names(student: Path, option: str, names: list[str]) -> None:
    found = planned(student, option)
    assert [name.partition("-")[0] for name in found] == [
        name.replace("[", "").replace("]", "") for name in names
    ]


def test_keys_of_one_last_part_are_called_by_all_their_parts(student: Path) -> None:
    found = planned(student, "optimiser.kind=adam,sgd", "loss.kind=hard,distillation")
    assert next(iter(found)) == "optimiser.kind=adam,loss.kind=hard"


def test_what_a_folder_cannot_be_called_is_replaced_and_told_apart(student: Path) -> None:
    found = planned(student, 'model.factory="a:b","a:b.c"', "training.seed=0")
    assert len(found) == 2
    assert all(name.startswith("factory=a_b") and "/" not in name and ":" not in name for name in found)


def test_a_longer_grid_finds_the_students_of_the_shorter(student: Path) -> None:
    short = planned(student, "targets.temperature=1,4")
    longer = planned(student, "targets.temperature=1,2,4,20")
    assert short.items() <= longer.items()


def test_variants_are_crossed_with_the_grid_and_with_their_own(student: Path) -> None:
    path = sweep_file(
        student,
        """
output = "many"
[grid]
training.seed = [0, 1]
[[variants]]
name = "hard"
set.loss = { kind = "hard" }
set.training.epochs = 7
[[variants]]
name = "soft"
grid."targets.temperature" = [1, 20]
""",
    )
    found = planned(path)
    assert list(found) == [
        "hard,seed=0",
        "hard,seed=1",
        "soft,seed=0,temperature=1",
        "soft,seed=0,temperature=20",
        "soft,seed=1,temperature=1",
        "soft,seed=1,temperature=20",
    ]
    hard = found["hard,seed=1"].config
    assert (hard.loss.kind, hard.training.seed, hard.training.epochs) == ("hard", 1, 7)
    assert hard.training.batch_size == 64, "a table without kind is put over the file's, key by key"
    assert found["soft,seed=0,temperature=20"].config.training.epochs == 2
    assert hard.output == str(student.parent / "many" / "hard,seed=1")


def test_a_grid_on_the_command_line_stands_beside_the_files(student: Path) -> None:
    path = sweep_file(student, "[grid]\ntargets.temperature = [1, 2]\n")
    assert len(planned(path, "training.seed=0,1,2")) == 6
    assert list(planned(path, "targets.temperature=8,9")) == ["temperature=8", "temperature=9"]


def test_the_demos_sweep_is_two_seeds_of_six_ways_to_train() -> None:
    found = planned(Path(__file__).parents[3] / "examples" / "mnist" / "sweep.toml")
    assert len(found) == 12
    assert found["hard_labels,seed=1"].config.loss.kind == "hard"
    assert found["distilled,seed=0,temperature=20"].config.targets.temperature == 20


def test_settings_are_for_all_students(student: Path) -> None:
    found = planned(student, "targets.temperature=1,4", **{"training.epochs": 9, "targets.rule": "geometric"})
    assert {(each.config.training.epochs, each.config.targets.rule) for each in found.values()} == {
        (9, "geometric")
    }


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "there is nothing to vary"),
        (["targets.temperature=4"], "there is nothing to vary"),
        (["targets.temperature"], "expected key.path=value,value,..."),
        (["targets.temperature="], "expected key.path=value,value,..."),
        (["targets temperature=1,2"], "is not a key path"),
        (["targets.temperature=1,2", "targets.temperature=3"], "given twice; name all its values in one"),
        (["targets.temperature=4,4.0"], "in the sweep more than once (temperature=4)"),
        (["targets.temperature=4,-1"], "1 of 2 students are not valid:\ntemperature=-1: "),
        (["targets.temperatur=1,2"], "did you mean 'temperature'?"),
        (["output=a,b"], "output cannot be varied"),
        (["training.seed=" + ",".join(map(str, range(10_001)))], "more than 10,000 students"),
    ],
)
def test_what_makes_no_sweep_is_refused(student: Path, grid: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(student, *grid)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\ntargets.temperature = 4\n", "targets.temperature is 4, expected a list of values"),
        ("[grid]\ntargets.temperature = []\n", "targets.temperature is [], expected a list of values"),
        ("[grid]\ntraining.seed = [0, 1]\noutputs = 3\n", "outputs is 3, expected a list"),
        ('[[variants]]\nname = "../up"\n', "variants[0].name"),
        ('[[variants]]\nname = "a"\n[[variants]]\nname = "a"\n', "in the sweep more than once (a)"),
        (
            '[[variants]]\nname = "a"\nset.training.seed = 1\ngrid.training.seed = [1, 2]\n',
            "'a' sets training.seed",
        ),
        ('[[variants]]\nname = "a"\nseet = 1\n', "did you mean 'set'?"),
        ('outptu = "x"\n[grid]\ntraining.seed = [0, 1]\n', "did you mean 'output'?"),
        ('output = "s3://bucket/x"\n[grid]\ntraining.seed = [0, 1]\n', "expected a local folder"),
    ],
)
def test_mistakes_in_a_sweeps_file_are_named(student: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(sweep_file(student, text))
    assert message in str(refused.value)


def test_an_output_in_settings_is_refused_for_it_would_be_that_of_all(student: Path) -> None:
    with pytest.raises(ConfigError, match="the folder is given by --output"):
        planned(student, "training.seed=0,1", output="x")
