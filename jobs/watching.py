"""Who watches a run of teachers: a person, by bars; or a program, by JSON Lines on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from softcask.jobs import figures
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcask.pipeline.precompute.results import Progress

PROGRESS = "SOFTCASK_PROGRESS"
"""The environment variable that asks for JSON Lines, with the value `json`."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def watching(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """JSON Lines where a program reads stderr, as of a submitted job's log; bars or lines elsewhere."""
    if (as_json and not sys.stderr.isatty()) or os.environ.get(PROGRESS) == "json":
        yield RunLines()
    else:
        with Bars() as bars:
            yield RunBars(bars)


class RunBars:
    """A run's progress as bars."""

    def __init__(self, bars: Bars) -> None:
        """Shown in these bars."""
        self._bars = bars
        self._missing = ""

    def __call__(self, step: Progress) -> None:
        """Show where the run stands."""
        unit = "teachers" if step.stage == "try codecs" else "rows"
        live = step.live
        if live is None:
            self._bars.show(step.stage, step.done, step.total, unit=unit)
        else:
            # Teachers are loaded while there is no rate: not the time to tell how long it will take.
            rate, left = live.rows_per_second, live.seconds_left if live.rows_per_second else None
            labels = step.stage == "label"
            self._bars.show(
                step.stage,
                step.done,
                step.total,
                unit=unit,
                below=figures.work(live),
                rate=rate if labels else None,
                left=left if labels else None,
            )
            if live.missing != self._missing:
                self._missing = live.missing
                if live.missing:
                    self._bars.line(live.missing)
        if step.stage == "index" and step.done == step.total:
            self._bars.show("label", unit="rows", note="starting workers, loading teachers")


class RunLines:
    """A run's progress as JSON Lines on stderr, for whoever started the command."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is written before something is told.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._said, self._stage = 0.0, ""

    def __call__(self, step: Progress) -> None:
        """A line when a stage begins or all of it is done, and every few seconds between."""
        now = self._clock()
        begins, ends = step.stage != self._stage, step.done == step.total
        if not (begins or ends or now - self._said >= _SECONDS_BETWEEN_LINES):
            return
        self._said, self._stage = now, step.stage
        known = {"stage": step.stage, "done": step.done, "total": step.total}
        live = step.live.model_dump(mode="json", exclude={"format_version", "process"}) if step.live else {}
        sys.stderr.write(json.dumps({"event": "progress", **live, **known}, allow_nan=False) + "\n")
        sys.stderr.flush()
