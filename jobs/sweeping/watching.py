"""A sweep on the screen: a bar for all of it, one for each student at work, a line for each that ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from softcask.jobs import console, figures
from softcask.jobs.progress import Bars
from softcask.jobs.sweeping.students import Student
from softcask.jobs.sweeping.training import Outcome
from softcask.pipeline.student.training.results import StudentProgress


class Tally:
    """How much of a sweep is done, and how long the rest will take."""

    def __init__(self, students: Sequence[Student], clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is done yet.

        Args:
            students: All of the sweep.
            clock: Seconds.
        """
        # What a student costs is known from its options alone: its epochs, as far as students are alike.
        self._work = {student.name: student.config.training.epochs for student in students}
        self._began: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._ended: set[str] = set()
        self._clock, self._start = clock, clock()

    @property
    def ended(self) -> int:
        """Students that have ended."""
        return len(self._ended)

    @property
    def at_work(self) -> int:
        """Students that have begun and not ended."""
        return len(self._done.keys() - self._ended)

    def see(self, name: str, share: float) -> None:
        """A student has done so much, from 0 to 1; what it had when it was first seen was done before."""
        self._began.setdefault(name, share)
        self._done[name] = share

    def end(self, name: str, *, trained: bool) -> None:
        """A student has ended."""
        if not trained:
            self._began[name] = 1.0
        self._done[name] = 1.0
        self._began.setdefault(name, 0.0)
        self._ended.add(name)

    def seconds_left(self) -> float | None:
        """By what was done since this began; None before anything was."""
        done = sum(self._work[name] * (share - self._began[name]) for name, share in self._done.items())
        left = sum(work * (1 - self._done.get(name, 0.0)) for name, work in self._work.items())
        return (self._clock() - self._start) * left / done if done > 0 else None


class Watcher:
    """Tells of a sweep through bars."""

    def __init__(self, bars: Bars, students: Sequence[Student]) -> None:
        """Show all of it, with nothing done."""
        self._bars = bars
        self._total = len(students)
        self._tally = Tally(students)
        self._show()

    def tell(self, name: str, progress: StudentProgress) -> None:
        """Where a student stands."""
        if progress.message:
            self._bars.line(f"{name}: {progress.message}")
        if not progress.steps:
            return
        self._tally.see(name, progress.step / progress.steps)
        self._show()
        loss = f", loss {progress.loss:.4f}" if progress.loss is not None else ""
        epoch = min(progress.epoch + 1, progress.epochs)
        self._bars.show(
            name,
            progress.step,
            progress.steps,
            unit="steps",
            left=progress.seconds_left,
            note=f"epoch {epoch} of {progress.epochs}{loss}",
        )

    def end(self, outcome: Outcome) -> None:
        """A student has ended."""
        self._tally.end(outcome.name, trained=outcome.trained)
        self._bars.end(outcome.name)
        if outcome.error is not None:
            self._bars.line(f"{outcome.name} failed: {outcome.error}")
        elif outcome.result is not None and outcome.trained:
            self._bars.line(f"{outcome.name}: {_came_of_it(outcome)}")
        self._show()

    def _show(self) -> None:
        at_work = f"{self._tally.at_work} at work" if self._tally.at_work else ""
        left = self._tally.seconds_left()
        self._bars.show("sweep", self._tally.ended, self._total, unit="students", left=left, note=at_work)


def _came_of_it(outcome: Outcome) -> str:
    result = outcome.result
    if result is None:
        return ""
    errors = f"{console.many(result.errors, 'test error')}, " if result.errors is not None else ""
    return f"{errors}loss {result.loss:.4f}, {figures.duration(result.seconds)}"
