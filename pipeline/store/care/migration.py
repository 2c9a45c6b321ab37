"""Bring a store that an older softcask made up to what one made now looks like.

There is one format so far: fields that were added since are left out of documents that say nothing by them,
so an older store opens as it is, and no document needs to be written anew. What ages is the catalog, which
inherits a table from every time it was sealed; one table in their place opens as fast as a new store's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import newest_generation
from softcask.pipeline.store.writing.sealing import reseal
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreNotFound
from softcask.storage_schemas.manifest import FORMAT_VERSION, format_version_of

_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """How old a store is.

    Attributes:
        versions: Documents by format version.
        tables: Tables that the newest generation is made of; 0 where nothing is sealed.
        generation: Its number; 0 where nothing is sealed.
    """

    versions: dict[int, int]
    tables: int
    generation: int

    @property
    def nothing(self) -> bool:
        """Whether it is as one made now."""
        return self.tables <= 1 and all(version == FORMAT_VERSION for version in self.versions)


def plan_migration(
    objects: StoreObjects, *, progress: Callable[[int, int], None] | None = None
) -> MigrationPlan:
    """Read the version of every document; nothing is written.

    Args:
        objects: The store.
        progress: Called after each document with documents done and in all.

    Raises:
        StoreNotFound: There is no store.
        FormatTooNew: A document was written by a newer softcask.
        CorruptObject: A document is damaged; `softcask repair` comes first.
    """
    present = objects.all_keys()
    if keys.ROOT not in present:
        raise StoreNotFound(f"there is no softcask store at {objects.uri} (no {keys.ROOT} in it)")
    documents = sorted(key for key in present if keys.is_document(key))
    versions: Counter[int] = Counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda key: format_version_of(objects.read(key), key), documents)
        for done, version in enumerate(found, start=1):
            versions[version] += 1
            if progress is not None:
                progress(done, len(documents))
    newest = newest_generation(objects)
    return MigrationPlan(
        versions=dict(versions),
        tables=len(newest.tables) if newest else 0,
        generation=newest.generation if newest else 0,
    )


def migrate(objects: StoreObjects, plan: MigrationPlan) -> int:
    """Carry it out, beside what stands: a new generation is the switch, and who reads the old one reads on.

    Returns:
        Number of the newest generation.

    Raises:
        CorruptObject: A document of the catalog is damaged, or a manifest is not what was sealed.
    """
    return plan.generation if plan.nothing else reseal(objects).generation
