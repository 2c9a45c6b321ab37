"""How much of a sweep is done and how long the rest takes, on a clock of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcask.jobs.progress import Bars
from softcask.jobs.sweeping.config import load_sweep
from softcask.jobs.sweeping.students import plan_students
from softcask.jobs.sweeping.training import Outcome
from softcask.jobs.sweeping.watching import Tally, Watcher
from softcask.pipeline.student.training.results import StudentProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_counts_what_was_done_now_and_not_what_was_done_before(student: Path) -> None:
    planned = plan_students(load_sweep(student, grid=["training.seed=0,1,2,3"]))
    clock = Clock()
    tally = Tally(planned, clock)
    a, b, c, _ = (each.name for each in planned)
    assert tally.seconds_left() is None
    tally.end(a, trained=False)
    assert (tally.seconds_left(), tally.ended, tally.at_work) == (None, 1, 0)
    tally.see(b, 0.5)  # it goes on at a checkpoint
    clock.now = 10.0
    tally.see(b, 0.75)
    # A quarter of a student took 10 s, and there are a quarter and two left.
    assert tally.seconds_left() == pytest.approx(90.0)
    tally.end(b, trained=True)
    tally.see(c, 0.0)
    clock.now = 20.0
    assert tally.seconds_left() == pytest.approx(20.0 * 2 / 0.5)
    assert (tally.ended, tally.at_work) == (2, 1)


def test_longer_students_count_for_more(student: Path) -> None:
    planned = plan_students(load_sweep(student, grid=["training.epochs=1,9"]))
    clock = Clock()
    tally = Tally(planned, clock)
    tally.see(planned[0].name, 0.0)
    clock.now = 5.0
    tally.end(planned[0].name, trained=True)
    assert tally.seconds_left() == pytest.approx(45.0)


def test_messages_ends_and_failures_are_lines(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_students(load_sweep(student, grid=["training.seed=0,1"]))
    with Bars() as bars:
        watcher = Watcher(bars, planned)
        going_on = StudentProgress(message="going on after epoch 1 of 2", epoch=1, epochs=2, step=4, steps=8)
        watcher.tell("seed=0", going_on)
        watcher.end(Outcome(name="seed=1", error="it broke"))
    assert capsys.readouterr().err.splitlines() == [
        "seed=0: going on after epoch 1 of 2",
        "seed=1 failed: it broke",
    ]
