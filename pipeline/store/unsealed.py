"""What is committed and stands in no generation yet: pending tables first, then receipts one by one.

A pending table is a copy of receipts, written while a run goes on into the folder of the generation to come.
It spares reading them again, and nothing more: where one is missing, damaged, or of another teacher, the
receipts are read. They are the truth.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import Contents, generation_numbers
from softcask.pipeline.store.commit_tables import NO_UNITS, Commits, CommitTable, choose
from softcask.pipeline.store.receipts import CommitRow, commit_row, committed_codes, read_commit
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import ObjectRecord, TeacherManifest
from softcask.storage_schemas.unit_codes import UNITS_A_SEGMENT, UnitCodes, codes_of, codes_of_column, unit_of

PENDING_UNITS = 2048
"""Units a pending table: what a killed run loses of its tables is as many receipts to read."""

_READERS = 16
_PENDING = re.compile(r"commits-([0-9a-f]{8})\.parquet")

Units = Mapping[str, UnitCodes]
"""Codes of units by teacher."""


def units_in(commits: pa.Table) -> dict[str, UnitCodes]:
    """Codes of the units of a table of commits, by teacher."""
    teachers = commits["teacher"].dictionary_encode().unify_dictionaries().combine_chunks()
    place_n, code_n = teachers.indices.to_numpy(zero_copy_only=False), codes_of_column(commits["unit"])
    names = teachers.dictionary.to_pylist()
    return {name: np.unique(code_n[place_n == place]) for place, name in enumerate(names)}


def as_units(pairs: Iterable[tuple[str, str]]) -> dict[str, UnitCodes]:
    """Codes by teacher of (teacher, unit)."""
    units: defaultdict[str, list[str]] = defaultdict(list)
    for teacher, unit in pairs:
        units[teacher].append(unit)
    return {teacher: codes_of(names) for teacher, names in units.items()}


def table_of(rows: Sequence[CommitRow]) -> bytes:
    """Rows as a pending table: beside them stands by which teacher, whatever bears its name now."""
    table = pa.Table.from_pylist(rows, schema=tables.COMMITS)
    return tables.to_bytes(tables.with_facts(table, {row["teacher"]: row["fingerprint"] for row in rows}))


def pending_keys(objects: StoreObjects) -> list[str]:
    """Tables that wait to be sealed: those in folders behind that of the last generation."""
    found: list[str] = []
    for number in reversed(generation_numbers(objects)):
        folder = f"catalog/{number:08d}"
        names = objects.names(folder)
        if "generation.json" in names:
            break
        found += [f"{folder}/{name}" for name in names if _PENDING.fullmatch(name)]
    return found


def read_pending(objects: StoreObjects, waiting: Sequence[str], contents: Contents) -> list[CommitTable]:
    """Those of the pending tables that can be used: whole, and of the teachers that stand."""
    found = (_read_pending(objects, key, contents) for key in waiting)
    return [table for table in found if table is not None]


def _read_pending(objects: StoreObjects, key: str, contents: Contents) -> CommitTable | None:
    data, crc = objects.read_if_present(key), key[-len("01234567.parquet") :][:8]
    if data is None or ObjectRecord.of(key, data).crc32c != crc:
        return None
    try:
        table = CommitTable.of(data, key)
    except CorruptObject:
        return None
    teachers = {name: digest(teacher.fingerprint) for name, teacher in contents.teachers.items()}
    known = [name for name in table.of_teacher if name in teachers]
    return table if all(table.facts.get(name) == teachers[name] for name in known) else None


def collect(
    objects: StoreObjects,
    contents: Contents,
    sources: Sequence[CommitTable],
    *,
    sealed: Units | None = None,
    stale: Units | None = None,
) -> Commits:
    """All commits of these contents but those that are sealed: from the tables at hand, else from receipts.

    A teacher's receipts are listed only if tables do not hold all its units.

    Args:
        objects: The store.
        contents: Whose commits.
        sources: Tables at hand.
        sealed: Units that are left out.
        stale: Units of which the tables are not believed.

    Raises:
        CorruptObject: A receipt is damaged.
        ManifestMismatch: A receipt is another teacher's.
    """
    sealed, names = sealed or {}, list(contents.teachers)
    but = {name: np.union1d(_of(sealed, name), _of(stale or {}, name)) for name in names}
    found = choose(sources, contents, but=[but] * len(sources))
    receipts: list[CommitTable] = []
    for name, teacher in contents.teachers.items():
        known = np.union1d(_of(sealed, name), found.units[name])
        if contents.planned_among(known, name) < contents.planned_units(name):
            lacking = np.setdiff1d(committed_codes(objects, name), known)
            receipts += _from_receipts(objects, teacher, lacking[_are_of(lacking, contents)])
    if not receipts:
        return found
    but = {name: np.union1d(but[name], found.disputed[name]) for name in names}
    but_of = [*[but] * len(sources), *[sealed] * len(receipts)]
    return choose([*sources, *receipts], contents, but=but_of)


def read_unsealed(objects: StoreObjects, contents: Contents, sealed: pa.Table) -> pa.Table:
    """Commits of these contents that stand in no generation, in a fixed order, with the schema `COMMITS`.

    Args:
        objects: The store.
        contents: Whose commits.
        sealed: The commits of the newest generation.

    Raises:
        CorruptObject: A receipt is damaged.
        ManifestMismatch: A receipt is another teacher's.
    """
    waiting = read_pending(objects, pending_keys(objects), contents)
    found = collect(objects, contents, waiting, sealed=units_in(sealed))
    return pa.concat_tables([tables.COMMITS.empty_table(), *found.tables(PENDING_UNITS)])


def _from_receipts(
    objects: StoreObjects, teacher: TeacherManifest, codes: UnitCodes
) -> Iterator[CommitTable]:
    """Tables of units' receipts, each read once."""
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(codes), PENDING_UNITS):
            units = [unit_of(code) for code in codes[first : first + PENDING_UNITS]]
            commits = pool.map(lambda unit: read_commit(objects, teacher, unit), units)
            data = table_of([commit_row(commit) for commit in commits if commit is not None])
            yield CommitTable.of(data, f"a table of {keys.commits_folder(teacher.name)}")


def _are_of(codes: UnitCodes, contents: Contents) -> NDArray[np.bool_]:
    return np.isin(codes // UNITS_A_SEGMENT, contents.segment_numbers)


def _of(units: Units, teacher: str) -> UnitCodes:
    return units.get(teacher, NO_UNITS)
