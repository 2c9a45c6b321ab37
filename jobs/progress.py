"""Progress of long work: bars where a person watches, a line now and then where a log is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from softcask.jobs import console, figures

_SECONDS_BETWEEN_LINES = 30.0


class _Rate(ProgressColumn):
    """Things a second: as told, or as seen."""

    def render(self, task: Task) -> Text:
        speed = task.fields["rate"] or task.finished_speed or task.speed
        # Of few and slow things the time left says more.
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed and speed >= 2 else "", style="cyan")


class _TimeLeft(ProgressColumn):
    """Time left, or spent where all is done."""

    def render(self, task: Task) -> Text:
        told = task.fields["left"]
        left = task.finished_time if task.finished else told if told is not None else task.time_remaining
        return Text(figures.duration(left), style="cyan")


class _Screen(Progress):
    """Bars, and what there is more to say below them."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars' table, then the text."""
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, style="dim")


class Bars:
    """A bar a stage, made when the stage is first heard of. A context manager.

    Where stderr is no terminal, short work is silent and long work says a line every half minute.
    """

    def __init__(self) -> None:
        """Nothing is shown before the first `show`."""
        terminal = console.stderr()
        self._bars = _Screen(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            _TimeLeft(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=terminal,
            disable=not terminal.is_terminal,
        )
        self._stages: dict[str, TaskID] = {}
        self._silent = not terminal.is_terminal
        self._began: dict[str, tuple[float, int]] = {}
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        """Start to draw."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()

    def show(
        self,
        stage: str,
        done: int = 0,
        total: int | None = None,
        *,
        unit: str,
        note: str = "",
        rate: float | None = None,
        left: float | None = None,
        below: str = "",
    ) -> None:
        """Where a stage stands.

        Args:
            stage: What it is called.
            done: How many are done.
            total: Of how many; None where that is not known yet.
            unit: What is counted.
            note: What else to show behind the bar.
            rate: How many a second; None: as seen here.
            left: Seconds left; None: by the rate seen here.
            below: What is too long to stand behind a bar.
        """
        if self._silent:
            self._say(stage, done, total, unit, note or below, rate, left)
            return
        self._bars.below = below
        fields: dict[str, Any] = {"unit": unit, "note": note, "rate": rate, "left": left}
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total, **fields)
        self._bars.update(self._stages[stage], completed=done, total=total, **fields)

    def end(self, stage: str) -> None:
        """Take a stage's bar away; what came of it is for a line to say."""
        if (task := self._stages.pop(stage, None)) is not None:
            self._bars.remove_task(task)

    def line(self, text: str) -> None:
        """A line that stays, above the bars."""
        if self._silent:
            console.note(text)
        else:
            self._bars.console.print(Text(text, style="dim"), soft_wrap=True)

    def _say(
        self,
        stage: str,
        done: int,
        total: int | None,
        unit: str,
        note: str,
        rate: float | None,
        left: float | None,
    ) -> None:
        now = time.monotonic()
        began, before = self._began.setdefault(stage, (now, done))
        if now - self._said < _SECONDS_BETWEEN_LINES or total is None:
            return
        self._said = now
        if rate is None:
            rate = (done - before) / (now - began) if now > began else 0.0
        left = (total - done) / rate if left is None and rate else left
        said = [f"{stage}: {done:,} of {total:,} {unit}", f"{rate:,.0f} {unit}/s"]
        said += [f"{figures.duration(left)} left"] if left is not None else []
        console.note(", ".join([*said, note] if note else said))
