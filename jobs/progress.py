"""Progress of long work: bars where a person watches, a line now and then where a log is kept."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

from softcask.jobs import console

_SECONDS_BETWEEN_LINES = 30.0


class _Rate(ProgressColumn):
    """Things a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="cyan")


class Bars:
    """A bar a stage, made when the stage is first heard of. A context manager.

    Where stderr is no terminal, short work is silent and long work says a line every half minute.
    """

    def __init__(self) -> None:
        """Nothing is shown before the first `show`."""
        terminal = console.stderr()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeLeftColumn(elapsed_when_finished=True),
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

    def show(self, stage: str, done: int = 0, total: int | None = None, *, unit: str, note: str = "") -> None:
        """Where a stage stands.

        Args:
            stage: What it is called.
            done: How many are done.
            total: Of how many; None where that is not known yet.
            unit: What is counted.
            note: What else to show behind the bar.
        """
        if self._silent:
            self._say(stage, done, total, unit, note)
            return
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total, unit=unit, note=note)
        self._bars.update(self._stages[stage], completed=done, total=total, note=note, unit=unit)

    def line(self, text: str) -> None:
        """A line that stays, above the bars."""
        if self._silent:
            console.note(text)
        else:
            self._bars.console.print(Text(text, style="dim"), soft_wrap=True)

    def _say(self, stage: str, done: int, total: int | None, unit: str, note: str) -> None:
        now = time.monotonic()
        began, before = self._began.setdefault(stage, (now, done))
        if now - self._said < _SECONDS_BETWEEN_LINES or total is None:
            return
        self._said = now
        rate = (done - before) / (now - began) if now > began else 0.0
        left = f", {(total - done) / rate:,.0f} s left" if rate else ""
        console.note(
            f"{stage}: {done:,} of {total:,} {unit}, {rate:,.0f} {unit}/s{left}{f', {note}' if note else ''}"
        )
