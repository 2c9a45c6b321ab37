"""The table, the answer and the picture, from outcomes made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from softcask.jobs.sweeping.config import load_sweep
from softcask.jobs.sweeping.plot import draw
from softcask.jobs.sweeping.report import best, columns_and_rows, document, grouped, spread
from softcask.jobs.sweeping.students import Student, plan_students
from softcask.jobs.sweeping.training import Outcome
from softcask.pipeline.student.training.results import StudentResult


def result(errors: int | None, loss: float = 0.25) -> StudentResult:
    return StudentResult(
        errors=errors,
        test_rows=None if errors is None else 1000,
        errors_by_epoch=(errors,),
        evaluation=None,
        loss=loss,
        loss_kind="distillation",
        temperature=4.0,
        teachers=("a",),
        teacher_passes=0,
        rows=10,
        epochs=1,
        parameters=3,
        seconds=2.0,
        cpu_seconds=2.0,
        dtype="float32",
        device="cpu",
        model="m",
    )


def students(student: Path, *grid: str) -> tuple[Student, ...]:
    return plan_students(load_sweep(student, grid=grid))


def test_seeds_are_one_row_with_their_mean_and_range(student: Path) -> None:
    all_of_them = students(student, "targets.temperature=1,4", "training.seed=0,1,2")
    errors = dict(zip((each.name for each in all_of_them), (30, 10, 20, 7, 5, 9), strict=True))
    outcomes = {
        name: Outcome(name=name, result=result(count), trained=True) for name, count in errors.items()
    }
    groups = grouped(all_of_them, outcomes)
    columns, rows = columns_and_rows(groups)
    assert columns == ["temperature", "seeds", "test errors", "loss", "seconds", ""]
    assert rows == [
        ["1", "3", "20.0 (10 to 30)", "0.25000 (0.2500 to 0.2500)", "6.0", ""],
        ["4", "3", "7.0 (5 to 9)", "0.25000 (0.2500 to 0.2500)", "6.0", ""],
    ]
    winner = best(groups)
    assert winner is not None and winner.name == "temperature=4"


def test_a_failed_student_has_a_row_that_says_so(student: Path) -> None:
    all_of_them = students(student, "targets.temperature=1,4")
    first, second = (each.name for each in all_of_them)
    outcomes = {
        first: Outcome(name=first, error="it broke", trained=True),
        second: Outcome(name=second, result=result(4), trained=False),
    }
    columns, rows = columns_and_rows(grouped(all_of_them, outcomes))
    assert columns == ["temperature", "test errors", "loss", "seconds", ""]
    assert rows == [["1", "-", "-", "0.0", "failed"], ["4", "4", "0.2500", "2.0", "trained before"]]
    answer = document(all_of_them, outcomes)
    assert (answer["failed"], [each["error"] for each in answer["students"]]) == (1, ["it broke", None])
    assert answer["students"][1]["result"]["errors"] == 4
    assert answer["students"][1]["varied"] == {"targets.temperature": 4}


def test_without_evaluation_nothing_is_best(student: Path) -> None:
    all_of_them = students(student, "targets.temperature=1,4")
    outcomes = {each.name: Outcome(name=each.name, result=result(None), trained=True) for each in all_of_them}
    groups = grouped(all_of_them, outcomes)
    assert best(groups) is None
    assert columns_and_rows(groups)[0] == ["temperature", "loss", "seconds", ""]


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [([], "-"), ([1234], "1,234"), ([1, 2, 6], "3.0 (1 to 6)"), ([5, 5], "5.0 (5 to 5)")],
)
def test_a_spread_is_a_mean_and_its_range(numbers: list[int], shown: str) -> None:
    assert spread(numbers) == shown


@pytest.mark.parametrize(
    "grid",
    [
        ["targets.temperature=1,4,20", "loss.hard_label_weight=0,0.5", "training.seed=0,1"],
        ["optimiser.kind=adam,sgd"],
        ["training.evaluate_every_epoch=true,false"],
        ["training.seed=0,1"],
    ],
)
def test_a_picture_is_drawn_whatever_is_varied(student: Path, tmp_path: Path, grid: list[str]) -> None:
    all_of_them = students(student, *grid)
    outcomes = {
        each.name: Outcome(name=each.name, result=result(number), trained=True)
        for number, each in enumerate(all_of_them)
    }
    draw(grouped(all_of_them, outcomes), tmp_path / "sweep.png", title="a sweep")
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size[0] > 500


def test_the_picture_shows_means_over_the_values_of_the_first_key_of_numbers(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[list[float], list[float], object]] = []
    errorbar = Axes.errorbar

    def seen(axes: Axes, x: list[float], y: list[float], *more: Any, **named: Any) -> Any:
        drawn.append((x, y, named["label"]))
        return errorbar(axes, x, y, *more, **named)

    monkeypatch.setattr(Axes, "errorbar", seen)
    all_of_them = students(
        student, "optimiser.kind=adam,sgd", "targets.temperature=20,1", "training.seed=0,1"
    )
    outcomes = {
        each.name: Outcome(name=each.name, result=result(10 * number), trained=True)
        for number, each in enumerate(all_of_them)
    }
    draw(grouped(all_of_them, outcomes), tmp_path / "sweep.png", title="a sweep")
    assert drawn == [([1, 20], [25, 5], "kind=adam"), ([1, 20], [65, 45], "kind=sgd")]
