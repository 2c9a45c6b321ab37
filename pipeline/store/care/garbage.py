"""Collect garbage: objects that no reader and no writer will ask for any more. Nothing else removes any.

What stays: all that the newest generation or a receipt names; all that an older generation names until it has
been superseded for long enough; whatever a planned unit may be adopted from; what softcask did not write. The
rest goes when it is old enough, so that what a writer has just begun is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from softcask.pipeline.store.access.local_objects import TEMPORARY
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.planned import PlannedKeys
from softcask.pipeline.store.catalog import (
    newest_generation,
    pointed_at,
    read_commits,
    read_contents,
)
from softcask.pipeline.store.unsealed import read_unsealed
from softcask.pipeline.store.writing.sealing import point_at, reseal
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import StoreNotFound
from softcask.storage_schemas.manifest import Dropped, Generation, ObjectRecord

_THREADS = 8
Reason = Literal["temporary", "dropped", "superseded", "orphan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One object that nobody will ask for.

    Attributes:
        key: The object.
        size: Its bytes.
        modified: When it was written, as its filesystem says; None where that cannot be told.
        reason: A writer's temporary; of what was dropped; of an older catalog; or named by no document.
    """

    key: str
    size: int
    modified: datetime | None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPlan:
    """What can be taken away.

    Attributes:
        take: Old enough, in the order in which they go.
        young: Garbage that is not old enough yet, or of unknown age.
        kept: Objects that are in use or planned.
        foreign: Objects that softcask did not write; they are left alone.
        freed: Dropped names of which nothing will stand; they can be used again.
    """

    take: tuple[Garbage, ...]
    young: tuple[Garbage, ...]
    kept: int
    foreign: int
    freed: Dropped


def plan_gc(
    objects: StoreObjects, *, older_than: timedelta, keep: int = 1, now: datetime | None = None
) -> GcPlan:
    """Look for garbage; nothing is written.

    Args:
        objects: The store.
        older_than: What was written, or superseded, more recently stays.
        keep: Newest generations that stay whatever their age.
        now: The time; None asks the clock.

    Raises:
        StoreNotFound: There is no store.
        CorruptObject: A document that says what is in use is damaged; `softcask repair` mends it.
    """
    listing = objects.listing()
    if keys.ROOT not in listing:
        raise StoreNotFound(f"there is no softcask store at {objects.uri} (no {keys.ROOT} in it)")
    before = (now or datetime.now(UTC)) - older_than
    newest = newest_generation(objects)
    used = _used(objects, newest, _kept_generations(listing, newest, keep, before))
    dropped = newest.dropped if newest else Dropped()
    planned = PlannedKeys(read_contents(objects, dropped))
    garbage, foreign = [], 0
    for key, info in listing.items():
        if key in used or key in planned:
            continue
        reason = _reason(key, dropped, newest.generation if newest else 0)
        if reason == "foreign":
            foreign += 1
        elif reason is not None:
            size, modified = int(info.get("size") or 0), modified_at(info)
            garbage.append(Garbage(key=key, size=size, modified=modified, reason=reason))
    take = [each for each in garbage if each.modified is not None and each.modified <= before]
    left = listing.keys() - {each.key for each in take}
    return GcPlan(
        take=tuple(sorted(take, key=lambda each: (_turn(each.key), each.key))),
        young=tuple(sorted((each for each in garbage if each.key in left), key=lambda each: each.key)),
        kept=len(listing) - len(garbage) - foreign,
        foreign=foreign,
        freed=_freed(left, dropped),
    )


def collect(
    objects: StoreObjects, plan: GcPlan, *, progress: Callable[[int, int, int], None] | None = None
) -> int:
    """Take away what was planned; killed anywhere, the store reads as before, and the rest goes next time.

    Args:
        objects: The store.
        plan: What `plan_gc` found.
        progress: Called after each object with objects done, objects in all and bytes done.

    Returns:
        Objects taken; those that were written anew since the plan are left.
    """
    if plan.take and (newest := newest_generation(objects)) and pointed_at(objects) != newest.generation:
        point_at(objects, newest)  # it may name one that goes
    done = size = taken = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for turn in sorted({_turn(each.key) for each in plan.take}):
            mine = [each for each in plan.take if _turn(each.key) == turn]
            for each, gone in zip(mine, pool.map(lambda each: _take(objects, each), mine), strict=True):
                done, size, taken = done + 1, size + each.size, taken + gone
                if progress is not None:
                    progress(done, len(plan.take), size)
    if taken == done and (plan.freed.teachers or plan.freed.segments):
        reseal(objects, drop=lambda before, _: _without(before, plan.freed))
    return taken


def modified_at(info: Mapping[str, Any]) -> datetime | None:
    """When an object was written, from what an fsspec filesystem tells of it."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        found = info.get(name)
        if isinstance(found, (int, float)):
            return datetime.fromtimestamp(found, UTC)
        if isinstance(found, str):
            try:
                found = datetime.fromisoformat(found)
            except ValueError:
                continue
        if isinstance(found, datetime):
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _kept_generations(
    listing: Mapping[str, Mapping[str, Any]], newest: Generation | None, keep: int, before: datetime
) -> list[int]:
    """The newest ones, and those that were the newest until a short time ago."""
    if newest is None:
        return []
    numbers = range(newest.generation, 0, -1)
    standing = [number for number in numbers if keys.generation(number) in listing]
    kept = standing[: max(keep, 1)]
    for number, successor in zip(standing[1:], standing, strict=False):
        superseded = modified_at(listing[keys.generation(successor)])
        if number not in kept and (superseded is None or superseded > before):
            kept.append(number)
    return kept


def _used(objects: StoreObjects, newest: Generation | None, numbers: Iterable[int]) -> set[str]:
    """Keys that a kept generation or a receipt names."""
    used = {keys.ROOT, keys.CATALOG_POINTER}
    read: set[ObjectRecord] = set()
    for number in numbers:
        key = keys.generation(number)
        generation = Generation.from_bytes(objects.read(key), key)
        named = (*generation.tables, *generation.manifests)
        used |= {key, *(record.key for record in named)}
        used |= {generation.dropped.rows.key} if generation.dropped.rows else set()
        fresh = generation.model_copy(update={"tables": tuple(set(generation.tables) - read)})
        used |= _named_by(read_commits(objects, fresh))
        read |= set(generation.tables)
    sealed = read_commits(objects, newest) if newest else tables.COMMITS.empty_table()
    contents = read_contents(objects, newest.dropped if newest else None)
    return used | _named_by(read_unsealed(objects, contents, sealed))


def _named_by(commits: Any) -> set[str]:
    rows = zip(commits["receipt"].to_pylist(), commits["objects"].to_pylist(), strict=True)
    return {record["key"] for receipt, written in rows for record in (receipt, *written)}


def _reason(key: str, dropped: Dropped, newest: int) -> Reason | Literal["foreign"] | None:
    """Why an object that is neither in use nor planned stands there; None where it is to be let alone."""
    parts = key.split("/")
    if parts[-1].startswith(TEMPORARY):
        return "temporary"
    teacher, segment = keys.owner(key)
    if teacher in dropped.teachers or segment in dropped.segments:
        return "dropped"
    match parts:
        case ["catalog", number, _] if len(number) == 8 and number.isdigit():
            return "superseded" if int(number) <= newest else None  # a writer may be about to seal it
        case ["teachers", _, "logits" | "stats" | "codec", *_]:
            return "orphan"
        case ["teachers", _, "probe.parquet"]:
            return "orphan"
        case ["teachers", _, "teacher.json"] | ["runs", *_] | ["transfer_set", _, _]:
            return None
    return "foreign"


def _turn(key: str) -> int:
    """Who speaks of others goes before them, so that nothing that stands ever speaks of what is gone."""
    match key.split("/"):
        case ["catalog", number, "generation.json"]:
            return int(number) - 10**8
        case ["teachers", _, "commits", _]:
            return 1
        case ["teachers", _, "teacher.json"] | ["transfer_set", _, "segment.json"]:
            return 2
    return 3


def _take(objects: StoreObjects, garbage: Garbage) -> bool:
    """Remove it, unless somebody has written it anew."""
    try:
        info = objects.fs.info(objects.path(garbage.key))
    except FileNotFoundError:
        return True
    if modified_at(info) != garbage.modified:
        return False
    objects.remove(garbage.key)
    return True


def _freed(left: Iterable[str], dropped: Dropped) -> Dropped:
    """Names of which nothing of ours is left."""
    owners = [keys.owner(key) for key in left if _reason(key, dropped, 0) == "dropped"]
    teachers, segments = ({owner[place] for owner in owners} for place in (0, 1))
    return Dropped(
        teachers=tuple(name for name in dropped.teachers if name not in teachers),
        segments=tuple(name for name in dropped.segments if name not in segments),
    )


def _without(dropped: Dropped, freed: Dropped) -> Dropped:
    return Dropped(
        teachers=tuple(name for name in dropped.teachers if name not in freed.teachers),
        segments=tuple(name for name in dropped.segments if name not in freed.segments),
        rows=dropped.rows,
    )
