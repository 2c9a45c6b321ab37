"""`softcask status`: which runs are at work on a store and how they get on, from any machine."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from softcask.jobs import console, figures
from softcask.jobs.options import Json, StoreUri
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from softcask.pipeline.store.access.objects import StoreObjects
    from softcask.pipeline.store.runs import Run

EXAMPLES = (
    "Examples:\n\nsoftcask status STORE\n\nsoftcask status s3://bucket/cask --watch\n\n"
    "softcask status STORE --json | jq '.runs[] | select(.state == \"at work\")'"
)
_LOOKED_AT = 100
"""Newest runs that are read; each is a request."""

_SHOWN = 5
"""Newest runs that are shown beside those at work."""

Watch = Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")]
Every = Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="How often --watch looks.")]
All = Annotated[bool, typer.Option("--all", help=f"All runs, not the newest {_LOOKED_AT} alone.")]


def status(
    store: StoreUri,
    watch: Watch = False,
    every: Every = 5.0,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Show the runs of a store: who is at work, how far, how fast, what is missing, what went wrong.

    A driver says every 10 seconds where it stands. With --watch, --json prints a line of JSON each time.
    """
    from softcask.pipeline.store.access.objects import StoreObjects

    objects = StoreObjects.at(store)
    looks = _looks(objects, everything, every if watch else None)
    try:
        if as_json:
            _emit(looks, lines=watch)
        elif watch and sys.stdout.isatty():
            _keep_showing(looks)
        else:
            for found in looks:
                console.stdout().print(shown(found), soft_wrap=True)
    except KeyboardInterrupt:
        if not watch:
            raise


def standing(
    objects: StoreObjects, *, everything: bool = False, now: datetime | None = None
) -> dict[str, Any]:
    """What a store tells of itself and of its runs, as plain JSON-able values; newest runs first.

    Raises:
        StoreNotFound: There is nothing of a store.
    """
    from softcask.pipeline.store.catalog import newest_generation
    from softcask.pipeline.store.runs import read_runs, run_names

    names = run_names(objects)
    looked_at = names if everything else names[-_LOOKED_AT:]
    if not names and objects.read_if_present(keys.ROOT) is None:
        raise StoreNotFound(
            f"there is no softcask store at {objects.uri} (no {keys.ROOT} in it); check the path"
        )
    newest = newest_generation(objects)
    moment = now or datetime.now(UTC)
    return {
        "store": objects.uri,
        "at": moment.isoformat(),
        "generation": newest.generation if newest else None,
        "teachers": {name: held.model_dump() for name, held in newest.teachers.items()} if newest else {},
        "runs": [_told(run, moment) for run in reversed(read_runs(objects, looked_at))],
        "not_looked_at": len(names) - len(looked_at),
    }


def _told(run: Run, now: datetime) -> dict[str, Any]:
    from softcask.pipeline.store.runs import age_of

    told: dict[str, Any] = {"run": run.name, "state": run.state(now), "problem": run.problem}
    if run.progress is not None:
        told |= {"age_seconds": age_of(run.progress, now)}
        told |= run.progress.model_dump(mode="json", exclude={"format_version", "run", "process"})
        if run.progress.workers:
            told["rows_per_second_a_device"] = run.progress.rows_per_second / run.progress.workers
    elif run.record is not None:
        kept = {"started", "wall_seconds", "executor", "host", "units", "rows", "device_seconds", "error"}
        told |= run.record.model_dump(mode="json", include=kept)
    return told


def shown(found: dict[str, Any]) -> RenderableType:
    """The same, for a person."""
    sealed = f"sealed generation {found['generation']}" if found["generation"] else "not sealed"
    held = [
        f"{name} {each['units']:,} of {console.many(each['planned_units'], 'unit')}"
        for name, each in found["teachers"].items()
    ]
    lines = [f"store       {found['store']}", f"state       {', '.join([sealed, *held])}"]
    live = [run for run in found["runs"] if run["state"] == "at work"]
    rest = [run for run in found["runs"] if run["state"] != "at work"]
    chosen = live + rest[:_SHOWN]
    if not chosen:
        return Group(*map(Text, [*lines, "no run is known here"]))
    table = console.table(
        ["run", "state", "host", "stage", "done", "rate", "left"], [_row(run) for run in chosen]
    )
    more = len(rest) - len(rest[:_SHOWN]) + found["not_looked_at"]
    notes = [line for run in chosen for line in _notes(run)]
    notes += (
        [f"and {console.many(more, 'run')} of before (--json tells all, --all looks at all)"] if more else []
    )
    return Group(*map(Text, lines), table, *map(Text, notes))


def _row(run: dict[str, Any]) -> list[str]:
    done = run.get("done", sum(run.get("rows", {}).values()))
    total = run.get("total")
    rate, live = run.get("rows_per_second"), run["state"] == "at work"
    return [
        run["run"],
        _state(run),
        run.get("host", "-"),
        run.get("stage", "-"),
        f"{done:,} of {total:,}" if total else f"{done:,}",
        f"{rate:,.0f}/s" if rate and live else "-",
        figures.duration(run.get("seconds_left")) if live else "-",
    ]


def _state(run: dict[str, Any]) -> str:
    from softcask.pipeline.store.runs import moment

    if "updated" not in run:
        return str(run["state"])
    heard = figures.at(moment(run["updated"]))
    if run["state"] == "silent":
        return f"no sign of life since {heard}"
    if run["state"] == "gone":
        return f"killed; last heard of {heard}"
    if run["state"] == "at work":
        return f"at work, heard of {max(run['age_seconds'], 0):.0f} s ago"
    return f"{run['state']} {heard}"


def _notes(run: dict[str, Any]) -> Iterator[str]:
    from softcask.storage_schemas.runs import RunProgress

    if run["state"] == "at work":
        known = {name: value for name, value in run.items() if name in RunProgress.model_fields}
        yield f"{run['run']}: {figures.work(RunProgress(**known))}"
    if run.get("missing") and run["state"] == "at work":
        yield f"{run['run']} waits: {run['missing']}"
    if (error := run.get("error")) and run["state"] != "refused":  # which says it all
        yield f"{run['run']}: {error}"
    if run["problem"]:
        yield f"{run['run']}: {run['problem']}"


def _looks(objects: StoreObjects, everything: bool, every: float | None) -> Iterator[dict[str, Any]]:
    yield standing(objects, everything=everything)
    while every is not None:
        time.sleep(every)
        yield standing(objects, everything=everything)


def _emit(looks: Iterator[dict[str, Any]], *, lines: bool) -> None:
    for found in looks:
        if lines:
            sys.stdout.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            console.emit(found)


def _keep_showing(looks: Iterator[dict[str, Any]]) -> None:
    with Live(console=console.stdout(), auto_refresh=False) as screen:
        for found in looks:
            screen.update(shown(found), refresh=True)
