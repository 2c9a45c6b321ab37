"""`softcask plan`: what `precompute` would do, before it costs anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.precompute.results import Plan, Progress

EXAMPLES = (
    "Examples:\n\nsoftcask plan run.toml\n\nsoftcask plan run.toml --quick --set store.unit_rows=4096"
    "\n\nsoftcask plan run.toml --set store.codec.max_kl=0.01 --json"
)

Quick = Annotated[bool, typer.Option("--quick", help="Run no teacher: units, rows and bytes only.")]


def plan(run: RunFile, settings: Settings = None, quick: Quick = False, as_json: Json = False) -> None:
    """Show what precompute would do: units, rows, bytes and time, and what each codec would keep and lose.

    Each teacher is run on a sample of the rows, where teachers run; nothing is written. Exits with 2 when no
    codec meets the budget.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.precompute.planning import plan as make_plan

    with console.answering(as_json), Bars() as bars:

        def watch(progress: Progress) -> None:
            bars.show(progress.stage, progress.done, progress.total, unit="teachers")

        found = make_plan(load_run(run, parse_overrides(settings or ())), trials=not quick, watch=watch)
    if as_json:
        console.emit(asdict(found))
    else:
        _show(found)
    if unmet := [name for name, teacher in found.teachers.items() if teacher.unmet]:
        console.complain(
            f"precompute would refuse this: no codec meets the budget for {', '.join(unmet)}; see above"
        )
        raise typer.Exit(2)


def _show(found: Plan) -> None:
    console.show_table(
        ["teacher", "units", "committed", "rows to do", "bytes to write", "worker"],
        [
            [name, f"{t.units:,}", f"{t.committed:,}", f"{t.rows:,}", console.size(t.bytes), t.group]
            for name, t in found.teachers.items()
        ],
    )
    for name, teacher in found.teachers.items():
        if teacher.trials:
            _show_trials(name, found.rows, teacher.trials)
            decided = teacher.chosen or teacher.unmet
            console.say(f"{name}: {teacher.reason if decided else f'kept by {teacher.codec}'}")
    needed = sum(teacher.bytes for teacher in found.teachers.values())
    console.say(f"store       {found.store}")
    views = f", each as it is and in {console.many(len(found.views) - 1, 'view')}" if found.views[1:] else ""
    console.say(f"rows        {found.rows:,} in units of {found.unit_rows:,}{views}")
    console.say(f"space       about {console.size(needed)} needed, {console.size(found.free_bytes)} free")
    times = [teacher.seconds for teacher in found.teachers.values() if teacher.seconds is not None]
    if times:
        console.say(f"time        about {sum(times):,.0f} s of forward passes, divided by the workers")
    if not any(teacher.rows for teacher in found.teachers.values()):
        console.say(
            f"nothing to do: all units of {console.many(len(found.teachers), 'teacher')} are committed"
        )


def _show_trials(name: str, rows: int, trials: tuple[dict[str, Any], ...]) -> None:
    temperatures = list(dict.fromkeys(t for trial in trials for t in trial["kl"]))
    console.show_table(
        ["codec", "bytes a row", "all rows", "KL", *(f"T={t}" for t in temperatures)],
        [
            [
                trial["codec"],
                f"{trial['row_bytes']:,.0f}",
                console.size(round(trial["row_bytes"] * rows) + trial["once_bytes"]),
                "mean\np99\nmax",
                *(
                    "\n".join(f"{trial['kl'][t][kind]:.2g}" for kind in ("mean", "p99", "max"))
                    if t in trial["kl"]
                    else "no claim"
                    for t in temperatures
                ),
            ]
            for trial in trials
        ],
        title=f"{name}: KL(teacher || decoded) in nats on rows that no codec was fitted on",
    )
