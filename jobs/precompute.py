"""`softcask precompute`: run the teachers over whatever is not labelled yet."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.jobs.watching import watching

if TYPE_CHECKING:
    from softcask.pipeline.precompute.results import Summary

_MOST_WARNINGS = 5

EXAMPLES = (
    "Examples:\n\nsoftcask precompute run.toml\n\nsoftcask precompute run.toml --set executor.kind=serial"
    "\n\nsoftcask precompute run.toml --set executor.address=auto --json"
)


Force = Annotated[
    bool,
    typer.Option("--force", help="Begin beside another driver, though one of the two wants it alone."),
]


def precompute(run: RunFile, settings: Settings = None, as_json: Json = False, force: Force = False) -> None:
    """Run every teacher once over the transfer set and keep its logits.

    Safe to run again: what is committed is left as it is, and only what is missing runs. `softcask status`
    shows from any machine where it stands.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.driver import precompute as run_teachers

    with console.answering(as_json), watching(as_json) as watch:
        config = load_run(run, parse_overrides(settings or ()))
        summary = run_teachers(config, watch=watch, force=force)
    if as_json:
        console.emit(asdict(summary))
    else:
        _show(summary)
    _warn(summary)


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
    if views := summary.views[1:]:
        console.say(f"views       {console.many(len(views), 'view')} of each row, beside the row as it is")
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
