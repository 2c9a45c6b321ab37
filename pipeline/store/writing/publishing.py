"""Publish a table under a name that may be taken: an equal one that stands there is the one that counts."""

from __future__ import annotations

import pyarrow as pa

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import ObjectRecord


def publish_table(objects: StoreObjects, key: str, table: pa.Table) -> tuple[ObjectRecord, bool]:
    """Publish a table, adopt an equal one, or replace what a writer left that died before its manifest.

    Equal tables have equal bytes only within one version of pyarrow, so values are compared where bytes
    differ: another writer may be about to record those that stand there.

    Returns:
        The record of what stands now, and whether the name was free.

    Raises:
        StoreAccess: The filesystem refused.
    """
    data = tables.to_bytes(table)
    fresh = objects.publish(key, data)
    if not fresh and (standing := objects.read(key)) != data:
        if _holds(standing, table, key):
            data = standing
        else:
            objects.replace(key, data)
    return ObjectRecord.of(key, data), fresh


def _holds(data: bytes, table: pa.Table, key: str) -> bool:
    try:
        return bool(tables.from_bytes(data, table.schema, key, rows=len(table)).equals(table))
    except CorruptObject:
        return False
