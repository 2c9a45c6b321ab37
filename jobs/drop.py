"""`softcask drop`: take a teacher, a segment or rows out of a store, so that readers see them no more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri, read_lines
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    from softcask.pipeline.store.care.drops import DropPlan

EXAMPLES = (
    "Examples:\n\nsoftcask drop STORE --teacher resnet-a --dry-run\n\n"
    "softcask drop STORE --segment s0001 --yes\n\nsoftcask drop STORE --rows withdrawn-ids.txt"
)

Teachers = Annotated[
    list[str] | None, typer.Option("--teacher", metavar="NAME", help="A teacher. Repeatable.")
]
Segments = Annotated[
    list[str] | None, typer.Option("--segment", metavar="s0001", help="An append of rows. Repeatable.")
]
RowsFile = Annotated[
    Path | None, typer.Option("--rows", metavar="FILE", help="Rows: a file with a sample_id a line.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be dropped.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def drop(
    store: StoreUri,
    teachers: Teachers = None,
    segments: Segments = None,
    rows: RowsFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take teachers, segments or rows out of a store.

    Seals a generation without them: who opens the store from now on does not see them, who has it open reads
    on. Objects stay until `softcask gc`. A dropped name can be used again when gc has taken its objects; a
    dropped row stays dropped.
    """
    from softcask.pipeline.store.access.objects import StoreObjects
    from softcask.pipeline.store.care.drops import drop as seal_without
    from softcask.pipeline.store.care.drops import plan_drop

    if not (teachers or segments or rows):
        raise ConfigError("nothing to drop: name a --teacher, a --segment or a file of --rows")
    if as_json and not (dry_run or yes):
        raise ConfigError("--json cannot ask: give --yes to drop, or --dry-run to look")
    objects = StoreObjects.at(store)
    plan = plan_drop(
        objects, teachers=teachers or (), segments=segments or (), sample_ids=_ids(rows) if rows else ()
    )
    if not as_json:
        _show(plan, store)
    if not dry_run and not yes and not plan.nothing:
        typer.confirm("Drop this?", abort=True, err=True)
    generation = None if dry_run else seal_without(objects, plan).generation
    if as_json:
        console.emit({"store": store, **asdict(plan), "generation": generation})
    elif generation is not None and not plan.nothing:
        console.say(f"dropped in generation {generation}; the objects stand until `softcask gc {store}`")


def _ids(path: Path) -> set[str]:
    ids = {line for line in read_lines(path, "--rows") if line}
    if not ids:
        raise ConfigError(f"{path} names no row; expected a file with a sample_id a line")
    return ids


def _show(plan: DropPlan, store: str) -> None:
    if plan.nothing:
        console.say(f"nothing to do: all of this is dropped from {store} already")
        return
    for what, names in (("teacher", plan.teachers), ("segment", plan.segments)):
        for name in names:
            console.say(f"{what:12}{name}")
    if plan.sample_ids:
        console.say(f"rows        {len(plan.sample_ids):,}")
    console.say(f"units       {plan.units:,}, {console.size(plan.bytes)} that gc can take then")
    console.say(f"readable    {plan.readable:,} rows now, {plan.readable_after:,} after")
