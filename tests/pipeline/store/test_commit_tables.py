from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.test_plan import segment
from tests.stores import teacher_manifest

from softcask.pipeline.store.catalog import Contents
from softcask.pipeline.store.commit_tables import CommitTable, choose, totals_of
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.unit_codes import codes_of

Row = dict[str, Any]

CONTENTS = Contents(
    segments=(segment(0, 40, 4), segment(2, 12, 4)),
    teachers={name: teacher_manifest(name) for name in ("b", "a")},
)
UNITS = st.builds(keys.unit_name, st.sampled_from(["s0000", "s0001", "s0002"]), st.just(0), st.integers(0, 5))


def row(teacher: str, unit: str, receipt: str, sizes: list[int]) -> Row:
    segment_of, view, index = keys.parse_unit(unit)
    numbers = {"start": index * 4, "stop": index * 4 + 4, "rows": 4, "labelled": 3, "correct": len(sizes)}
    return {
        "teacher": teacher,
        "unit": unit,
        "segment": segment_of,
        "view": view,
        "index": index,
        **numbers,
        "objects": [{"key": f"o{n}", "size": size, "crc32c": "00000000"} for n, size in enumerate(sizes)],
        "receipt": {"key": keys.commit(teacher, unit), "size": 9, "crc32c": receipt},
    }


ROWS = st.builds(
    row,
    st.sampled_from(["a", "b", "gone"]),
    UNITS,
    st.sampled_from(["00000001", "00000002"]),
    st.lists(st.integers(0, 2**40), max_size=3),
)


def stored(rows: list[Row]) -> CommitTable:
    return CommitTable.of(tables.to_bytes(pa.Table.from_pylist(rows, schema=tables.COMMITS)), "here")


def by_unit(rows: list[Row], but: set[tuple[str, str]]) -> dict[tuple[str, str], list[Row]]:
    """Rows of these contents."""
    found = defaultdict(list)
    for each in rows:
        unit = (each["teacher"], each["unit"])
        if each["teacher"] in CONTENTS.teachers and each["segment"] != "s0001" and unit not in but:
            found[unit].append(each)
    return found


@given(
    parts=st.lists(st.lists(ROWS, max_size=8), max_size=4),
    but=st.sets(st.tuples(st.sampled_from("ab"), UNITS), max_size=6),
    most_rows=st.integers(1, 9),
)
def test_of_many_tables_come_those_rows_that_are_of_one_mind_in_order_each_unit_once(
    parts: list[list[Row]], but: set[tuple[str, str]], most_rows: int
) -> None:
    codes = {name: codes_of([unit for teacher, unit in but if teacher == name]) for name in "ab"}
    chosen = choose([stored(rows) for rows in parts], CONTENTS, but=[codes] * len(parts))
    found = by_unit([each for rows in parts for each in rows], but)
    receipts = {unit: {each["receipt"]["crc32c"] for each in rows} for unit, rows in found.items()}
    agreed = {unit: rows[0] for unit, rows in found.items() if len(receipts[unit]) == 1}
    made = list(chosen.tables(most_rows))
    assert [each for table in made for each in table.to_pylist()] == [agreed[unit] for unit in sorted(agreed)]
    assert all(table.schema.equals(tables.COMMITS, check_metadata=True) for table in made)
    assert [len(table) for table in made[:-1]] == [most_rows] * (len(made) - 1)
    assert len(chosen) == len(agreed)
    for name in "ab":
        assert chosen.units[name].tolist() == codes_of([u for t, u in agreed if t == name]).tolist()
        split = [u for (t, u) in found.keys() - agreed.keys() if t == name]
        assert chosen.disputed[name].tolist() == codes_of(split).tolist()
        mine = [each for (t, _), each in agreed.items() if t == name]
        totals = totals_of([chosen, choose([], CONTENTS)], name, 13)
        assert (totals.units, totals.planned_units) == (len(mine), 13)
        for field in ("rows", "labelled", "correct"):
            assert getattr(totals, field) == sum(each[field] for each in mine)
        assert totals.bytes == sum(record["size"] for each in mine for record in each["objects"])


def test_what_is_no_table_of_commits_is_refused() -> None:
    for data in (b"", b"PAR1", tables.to_bytes(tables.DROPPED.empty_table())):
        with pytest.raises(CorruptObject, match="here"):
            CommitTable.of(data, "here")


def test_a_table_whose_units_have_no_names_is_refused() -> None:
    spoilt = {**row("a", "s0000-v0000-00000001", "00000001", []), "unit": "s0000"}
    with pytest.raises(CorruptObject, match="here"):
        stored([spoilt])
