"""Tables of commits without their weight: which units stand in them, and one table made of several.

A row of a table takes 400 bytes in memory and 50 as stored. So tables are held as stored, beside a few
numbers of each commit, and unpacked one after another when a table is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.store.catalog import Contents
from softcask.storage_schemas import tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import TeacherTotals
from softcask.storage_schemas.unit_codes import UNITS_A_SEGMENT, UnitCodes, codes_of_column

NO_UNITS: UnitCodes = np.empty(0, dtype=np.int64)

_COLUMNS = (
    *("teacher", "unit", "rows", "labelled", "correct"),
    *("objects.list.element.size", "receipt.crc32c"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommitTable:
    """One table of n commits.

    Attributes:
        key: Where it lies, for messages.
        data: As stored.
        of_teacher: Its rows, by teacher.
        code_n: `[n]` codes of the units.
        receipt_n: `[n]` CRCs of the receipts, as text.
        sums_n4: `[n, 4]`: rows with logits, labelled ones, correct ones, bytes of the objects.
        facts: What was written beside the rows: of a pending table, fingerprints by teacher.
    """

    key: str
    data: bytes
    of_teacher: Mapping[str, NDArray[np.int64]]
    code_n: NDArray[np.int64]
    receipt_n: NDArray[np.bytes_]
    sums_n4: NDArray[np.int64]
    facts: Mapping[str, str]

    @classmethod
    def of(cls, data: bytes, key: str) -> CommitTable:
        """The table in `data`.

        Raises:
            CorruptObject: It is none.
        """
        table = tables.from_bytes(data, tables.COMMITS, key, columns=_COLUMNS)
        teachers = pc.dictionary_encode(table["teacher"]).unify_dictionaries().combine_chunks()
        teacher_n = teachers.indices.to_numpy(zero_copy_only=False)
        names = teachers.dictionary.to_pylist()
        counted = (table[name].to_numpy() for name in ("rows", "labelled", "correct"))
        receipts = pc.fill_null(pc.struct_field(table["receipt"], "crc32c"), "").to_pylist()
        return cls(
            key=key,
            data=data,
            of_teacher={name: np.flatnonzero(teacher_n == place) for place, name in enumerate(names)},
            code_n=_units(table["unit"], key),
            receipt_n=np.array(receipts, dtype="S8"),
            sums_n4=np.stack([*counted, _bytes(table["objects"])], axis=1, dtype=np.int64),
            facts=tables.facts_of(table),
        )

    def rows_of(self, teacher: str, but: UnitCodes) -> NDArray[np.int64]:
        """Rows of a teacher, but those of some units."""
        rows = self.of_teacher.get(teacher, NO_UNITS)
        return rows[~np.isin(self.code_n[rows], but)] if len(but) else rows

    def unpacked(self) -> pa.Table:
        """All of it."""
        found = tables.from_bytes(self.data, tables.COMMITS, self.key)
        return pa.table(found.columns, schema=tables.COMMITS)  # without what Parquet and we wrote beside it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Commits:
    """N commits out of several tables, by teacher and unit, each unit once.

    Attributes:
        sources: The tables.
        source_N: `[N]` which of them each is from.
        row_N: `[N]` its row there.
        units: Codes of the units, by teacher.
        disputed: Codes of units, by teacher, that tables tell differently of; they are left out.
    """

    sources: Sequence[CommitTable]
    source_N: NDArray[np.int32]
    row_N: NDArray[np.int64]
    units: Mapping[str, UnitCodes]
    disputed: Mapping[str, UnitCodes]

    def __len__(self) -> int:
        """Commits."""
        return len(self.row_N)

    def tables(self, most_rows: int) -> Iterator[pa.Table]:
        """The commits in tables of so many rows, the last one of fewer; each made when it is asked for."""
        for first in range(0, len(self), most_rows):
            yield self._table(slice(first, first + most_rows))

    def _table(self, some: slice) -> pa.Table:
        source_m, row_m = self.source_N[some], self.row_N[some]
        used = np.unique(source_m)
        unpacked = [self.sources[number].unpacked() for number in used]
        firsts = np.cumsum([0, *map(len, unpacked)])
        whole = pa.concat_tables(unpacked).combine_chunks()
        return whole.take(firsts[np.searchsorted(used, source_m)] + row_m).combine_chunks()


def choose(
    sources: Sequence[CommitTable],
    contents: Contents,
    *,
    but: Sequence[Mapping[str, UnitCodes]] | None = None,
) -> Commits:
    """The commits of some tables, by teacher and unit.

    Args:
        sources: The tables.
        contents: Whose commits.
        but: Units that are left out, of each table.
    """
    but_of = but or [{}] * len(sources)
    source_N: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    row_N: list[NDArray[np.int64]] = [NO_UNITS]
    units, disputed = {}, {}
    for name in sorted(contents.teachers):
        rows = [
            source.rows_of(name, out.get(name, NO_UNITS)) for source, out in zip(sources, but_of, strict=True)
        ]
        source_n = np.repeat(np.arange(len(sources), dtype=np.int32), [len(each) for each in rows])
        row_n, code_n = np.concatenate([NO_UNITS, *rows]), _codes(sources, rows)
        kept_m, disputed[name] = _each_once(code_n, _receipts(sources, rows), contents)
        source_N.append(source_n[kept_m])
        row_N.append(row_n[kept_m])
        units[name] = code_n[kept_m]
    return Commits(
        sources=sources,
        source_N=np.concatenate(source_N),
        row_N=np.concatenate(row_N),
        units=units,
        disputed=disputed,
    )


def totals_of(commits: Sequence[Commits], teacher: str, planned_units: int) -> TeacherTotals:
    """What a generation of these commits says of a teacher."""
    units, sums_4 = 0, np.zeros(4, dtype=np.int64)
    for each in commits:
        begin = sum(len(codes) for name, codes in each.units.items() if name < teacher)
        mine = slice(begin, begin + len(each.units.get(teacher, NO_UNITS)))
        units += mine.stop - mine.start
        for number, source in enumerate(each.sources):
            sums_4 += source.sums_n4[each.row_N[mine][each.source_N[mine] == number]].sum(axis=0)
    rows, labelled, correct, size = sums_4.tolist()
    return TeacherTotals(
        units=units,
        planned_units=planned_units,
        rows=rows,
        labelled=labelled,
        correct=correct,
        bytes=size,
    )


def _codes(sources: Sequence[CommitTable], rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([NO_UNITS, *(s.code_n[which] for s, which in zip(sources, rows, strict=True))])


def _receipts(sources: Sequence[CommitTable], rows: Sequence[NDArray[np.int64]]) -> NDArray[np.bytes_]:
    found = (source.receipt_n[which] for source, which in zip(sources, rows, strict=True))
    return np.concatenate([np.empty(0, "S8"), *found])


def _each_once(
    code_n: NDArray[np.int64], receipt_n: NDArray[np.bytes_], contents: Contents
) -> tuple[NDArray[np.int64], UnitCodes]:
    """Places of m units of these contents, rising by code, each once; and units of several receipts."""
    known_n = np.isin(code_n // UNITS_A_SEGMENT, contents.segment_numbers)
    place_n = np.flatnonzero(known_n)[np.argsort(code_n[known_n], kind="stable")]
    code_n, receipt_n = code_n[place_n], receipt_n[place_n]
    again_n = np.zeros(len(place_n), dtype=np.bool_)
    again_n[1:] = code_n[1:] == code_n[:-1]
    differs_n = again_n.copy()
    differs_n[1:] &= receipt_n[1:] != receipt_n[:-1]
    disputed = np.unique(code_n[differs_n])
    return place_n[~again_n & ~np.isin(code_n, disputed)], disputed


def _units(units: pa.ChunkedArray, key: str) -> NDArray[np.int64]:
    try:
        return codes_of_column(units)
    except ValueError as error:
        raise CorruptObject(f"{key} holds something that is no unit's name: {error}") from error


def _bytes(objects: pa.ChunkedArray) -> NDArray[np.int64]:
    """Sum of the sizes of each list of records."""
    whole = pa.concat_arrays(objects.chunks) if objects.num_chunks != 1 else objects.chunk(0)
    sizes = pc.fill_null(pc.struct_field(whole.flatten(), "size"), 0).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(whole), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    running = np.append(0, np.cumsum(sizes, dtype=np.int64))
    sums: NDArray[np.int64] = running[ends] - running[ends - lengths]
    return sums
