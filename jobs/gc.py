"""`softcask gc`: what stands in a store and is asked for by nobody any more; with --delete, take it away."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.jobs.progress import Bars
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    from softcask.pipeline.store.care.garbage import Garbage, GcPlan

EXAMPLES = (
    "Examples:\n\nsoftcask gc STORE\n\nsoftcask gc STORE --older-than 12h --delete\n\n"
    "softcask gc s3://bucket/store --json"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MEANINGS = {
    "dropped": "of what was dropped",
    "superseded": "older generations of the catalog",
    "orphan": "named by no document",
    "temporary": "begun and never finished",
}

Delete = Annotated[bool, typer.Option("--delete", help="Take it away. Without this nothing is changed.")]
OlderThan = Annotated[
    str, typer.Option("--older-than", metavar="AGE", help="Leave what is younger: 30m, 12h, 7d, 0s.")
]
Keep = Annotated[int, typer.Option("--keep", min=1, help="Newest generations to keep, however old.")]


def gc(
    store: StoreUri,
    delete: Delete = False,
    older_than: OlderThan = "7d",
    keep: Keep = 1,
    as_json: Json = False,
) -> None:
    """Show what nobody will ask for any more, and take it away with --delete.

    What is in use, what a planned unit may be made of, and what softcask did not write always stays. So does
    all that a reader may hold who opened the store less than --older-than ago.
    """
    from softcask.pipeline.store.access.objects import StoreObjects
    from softcask.pipeline.store.care.garbage import collect, plan_gc

    objects = StoreObjects.at(store)
    plan = plan_gc(objects, older_than=_duration(older_than), keep=keep)
    taken = 0
    if delete:
        with Bars() as bars:

            def watch(done: int, total: int, size: int) -> None:
                bars.show("remove", done, total, unit="objects", note=console.size(size))

            taken = collect(objects, plan, progress=watch)
    if as_json:
        console.emit({"store": store, **_summary(plan), "taken": taken})
    else:
        _show(plan, store, older_than, taken if delete else None)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise ConfigError(f"--older-than {text}: expected a number with s, m, h or d, such as 12h or 7d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _summary(plan: GcPlan) -> dict[str, Any]:
    return {
        "garbage": {reason: _counted(plan.take, reason) for reason in _MEANINGS},
        "keys": [each.key for each in plan.take],
        "young": {"objects": len(plan.young), "bytes": sum(each.size for each in plan.young)},
        "kept": plan.kept,
        "foreign": plan.foreign,
        "freed": {"teachers": list(plan.freed.teachers), "segments": list(plan.freed.segments)},
    }


def _counted(garbage: tuple[Garbage, ...], reason: str) -> dict[str, Any]:
    mine = [each for each in garbage if each.reason == reason]
    oldest = min((each.modified for each in mine if each.modified), default=None)
    return {
        "objects": len(mine),
        "bytes": sum(each.size for each in mine),
        "oldest": oldest.isoformat() if oldest else None,
    }


def _show(plan: GcPlan, store: str, older_than: str, taken: int | None) -> None:
    found = {reason: _counted(plan.take, reason) for reason in _MEANINGS}
    rows = [
        [
            _MEANINGS[reason],
            f"{count['objects']:,}",
            console.size(count["bytes"]),
            _age(count["oldest"]),
        ]
        for reason, count in found.items()
        if count["objects"]
    ]
    if rows:
        console.show_table(["garbage", "objects", "bytes", "oldest, days"], rows)
    size = sum(each.size for each in plan.take)
    if not plan.take:
        console.say(f"nothing to take from {store} that is older than {older_than}")
    elif taken is None:
        console.say(
            f"{console.many(len(plan.take), 'object')}, {console.size(size)}, would go; "
            "nothing was changed: give --delete to take them away"
        )
    else:
        console.say(f"took {console.many(taken, 'object')}, {console.size(size)}, from {store}")
        if taken < len(plan.take):
            console.say(f"{console.many(len(plan.take) - taken, 'object')} written anew meanwhile stay")
    if plan.young:
        console.say(
            f"{console.many(len(plan.young), 'object')} of garbage younger than {older_than} "
            f"({console.size(sum(each.size for each in plan.young))}) stay for now"
        )
    if plan.foreign:
        console.say(f"{console.many(plan.foreign, 'object')} that softcask did not write stay")
    names = (*plan.freed.teachers, *plan.freed.segments)
    if names:
        free = "are" if taken is not None else "would be"
        console.say(f"free to be used again {free}: {', '.join(names)}")


def _age(oldest: str | None) -> str:
    if oldest is None:
        return "-"
    return f"{(datetime.now(UTC) - datetime.fromisoformat(oldest)) / timedelta(days=1):,.1f}"
