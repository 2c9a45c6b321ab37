"""How many tables a catalog has: many small ones are made one, and none has more than so many units.

A store that grows by a thousand small runs opens as fast as one that was made at once, and a unit's row is
written anew only a few times, however often the store grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from softcask.pipeline.store.catalog import Contents
from softcask.pipeline.store.commit_tables import Commits, CommitTable, choose
from softcask.storage_schemas import tables
from softcask.storage_schemas.manifest import ObjectRecord

TABLE_UNITS = 100_000
"""Units of a table at most: what is unpacked at one time when a catalog is written."""

_LARGE_BYTES = 1 << 20
_AT_ONCE = 8


def first_to_merge(inherited: Sequence[ObjectRecord]) -> int:
    """Place of the first of these tables that goes into a new one with all behind it; their number for none.

    Tables are of sizes: 1 MiB and more, an eighth of that, and so on. Eight of the last ones that are of no
    larger size go together, into one of the next.
    """
    small = _LARGE_BYTES
    while small > 1:
        first = len(inherited)
        while first and inherited[first - 1].size < small:
            first -= 1
        if len(inherited) - first >= _AT_ONCE:
            return first
        small //= _AT_ONCE
    return len(inherited)


def merged(old: Sequence[CommitTable], added: Commits, contents: Contents) -> Iterator[pa.Table]:
    """Tables of what is added, and of those tables that go with it."""
    if not old:
        return added.tables(TABLE_UNITS)
    new = [CommitTable.of(tables.to_bytes(table), "a new table") for table in added.tables(TABLE_UNITS)]
    return choose([*old, *new], contents).tables(TABLE_UNITS)
