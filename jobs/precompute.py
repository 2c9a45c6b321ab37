"""`softcask precompute`: run the teachers over whatever is not labelled yet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.precompute.results import Progress, Summary

_MOST_WARNINGS = 5

EXAMPLES = (
    "Examples:\n\nsoftcask precompute run.toml\n\nsoftcask precompute run.toml --set executor.kind=serial"
    "\n\nsoftcask precompute run.toml --set executor.address=auto --json"
)


def precompute(run: RunFile, settings: Settings = None, as_json: Json = False) -> None:
    """Run every teacher once over the transfer set and keep its logits.

    Safe to run again: what is committed is left as it is, and only what is missing runs.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.driver import precompute as run_teachers

    with console.answering(as_json), Bars() as bars:
        config = load_run(run, parse_overrides(settings or ()))
        summary = run_teachers(config, watch=_Watch(bars))
    if as_json:
        console.emit(asdict(summary))
    else:
        _show(summary)
    _warn(summary)


class _Watch:
    """Turns the run's progress into bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def __call__(self, progress: Progress) -> None:
        for stage, seconds in (progress.seconds or {}).items():
            self._seconds[stage.partition(":")[0]] += seconds
        self._bars.show(progress.stage, progress.done, progress.total, unit="rows", note=self._shares())
        if progress.stage == "index" and progress.done == progress.total:
            self._bars.show("label", unit="rows", note="starting workers, loading teachers")

    def _shares(self) -> str:
        total = sum(self._seconds.values())
        if not total:
            return ""
        return ", ".join(
            f"{stage} {self._seconds[stage] / total:.0%}" for stage in ("read", "forward", "encode", "write")
        )


def _show(summary: Summary) -> None:
    console.show_table(
        ["teacher", "rows", "new rows", "top-1 on labelled", "bytes", "device seconds"],
        [
            [
                name,
                f"{t.rows:,}",
                f"{t.new_rows:,}",
                f"{console.share(t.correct, t.labelled)} of {t.labelled:,}" if t.labelled else "no labels",
                console.size(t.bytes),
                f"{t.device_seconds:,.1f}",
            ]
            for name, t in summary.teachers.items()
        ],
    )
    console.say(f"store       {summary.store}, generation {summary.generation}")
    if summary.tasks:
        console.say(
            f"time        {summary.wall_seconds:,.1f} s on {console.many(summary.workers, 'worker')}; "
            f"measured in runs/{summary.run}/run.json"
        )
    else:
        units = sum(teacher.units for teacher in summary.teachers.values())
        console.say(
            f"nothing to do: all {console.many(units, 'unit')} of "
            f"{console.many(len(summary.teachers), 'teacher')} are committed; no teacher pass"
        )


def _warn(summary: Summary) -> None:
    if summary.quarantined:
        tables = ", ".join(f"{summary.store}/{key}" for key in summary.quarantine_tables)
        console.warn(
            f"{console.many(summary.quarantined, 'row')} could not be read and have no logits; the reason of "
            f"each is in the column `quarantine` of {tables}"
        )
    for line in summary.warnings[:_MOST_WARNINGS]:
        console.warn(line)
    if len(summary.warnings) > _MOST_WARNINGS:
        console.warn(f"and {len(summary.warnings) - _MOST_WARNINGS} more units like these (--json tells all)")
    for name, teacher in summary.teachers.items():
        if teacher.suspicious:
            console.warn(
                f"teacher {name!r} is right on {console.share(teacher.correct, teacher.labelled)} of "
                f"{teacher.labelled:,} labelled rows, which is near chance. Look at the order of its classes "
                "(class_map), its weights and its preprocessing before you train from it."
            )
