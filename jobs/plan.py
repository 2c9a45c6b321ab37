"""`softcask plan`: what `precompute` would do, before it costs anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings

if TYPE_CHECKING:
    from softcask.pipeline.precompute.results import Plan

EXAMPLES = "Examples:\n\nsoftcask plan run.toml\n\nsoftcask plan run.toml --set store.unit_rows=4096 --json"


def plan(run: RunFile, settings: Settings = None, as_json: Json = False) -> None:
    """Show what precompute would do: units, rows and bytes for each teacher. Nothing is written."""
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.driver import plan as make_plan

    with console.answering(as_json):
        found = make_plan(load_run(run, parse_overrides(settings or ())))
    if as_json:
        console.emit(asdict(found))
    else:
        _show(found)


def _show(found: Plan) -> None:
    console.show_table(
        ["teacher", "units", "committed", "rows to do", "bytes to write", "worker"],
        [
            [name, f"{t.units:,}", f"{t.committed:,}", f"{t.rows:,}", console.size(t.bytes), t.group]
            for name, t in found.teachers.items()
        ],
    )
    needed = sum(teacher.bytes for teacher in found.teachers.values())
    console.say(f"store       {found.store}")
    console.say(f"rows        {found.rows:,} in units of {found.unit_rows:,}")
    console.say(f"space       about {console.size(needed)} needed, {console.size(found.free_bytes)} free")
    if not needed:
        console.say(
            f"nothing to do: all units of {console.many(len(found.teachers), 'teacher')} are committed"
        )
