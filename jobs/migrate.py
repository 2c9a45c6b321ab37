"""`softcask migrate`: bring a store that an older softcask made up to date."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.jobs.progress import Bars

EXAMPLES = (
    "Examples:\n\nsoftcask migrate STORE --check\n\nsoftcask migrate STORE\n\nsoftcask migrate STORE --json"
)

Check = Annotated[bool, typer.Option("--check", help="Only show how old the store is.")]


def migrate(store: StoreUri, check: Check = False, as_json: Json = False) -> None:
    """Bring a store up to date, beside what stands; who has it open reads on.

    Stores of every softcask so far open without this. It refuses those of a newer one.
    """
    from softcask.pipeline.store.access.objects import StoreObjects
    from softcask.pipeline.store.care.migration import migrate as carry_out
    from softcask.pipeline.store.care.migration import plan_migration

    objects = StoreObjects.at(store)
    with Bars() as bars:

        def watch(done: int, total: int) -> None:
            bars.show("read", done, total, unit="documents")

        plan = plan_migration(objects, progress=watch)
        generation = plan.generation if check else carry_out(objects, plan)
    if as_json:
        console.emit({"store": store, **asdict(plan), "migrated_to": generation})
        return
    for version, count in sorted(plan.versions.items()):
        console.say(f"format {version}    {console.many(count, 'document')}")
    sealed = f"generation {plan.generation}, {console.many(plan.tables, 'table')}"
    console.say(f"catalog     {sealed if plan.generation else 'not sealed'}")
    if plan.nothing:
        console.say("nothing to do: the store is as one made now")
    elif check:
        console.say("migrate would seal a generation of one table; nothing was changed")
    else:
        console.say(f"sealed generation {generation}, of one table")
