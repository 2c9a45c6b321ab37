from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.stores import all_objects, flip, rows_table

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.rows import read_rows
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.errors import CorruptObject, ManifestMismatch, StoreError
from softcask.storage_schemas.manifest import SegmentManifest

SEGMENT, ROWS = keys.segment_manifest("s0000"), keys.segment_rows("s0000")


@pytest.fixture
def objects(tmp_path: Path) -> StoreObjects:
    return StoreObjects.at(str(tmp_path / "store"))


class Index:
    """Stands for reading every row of a source; counts how often it is done."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.calls = table, 0

    def __call__(self) -> pa.Table:
        self.calls += 1
        return self.table


def prepare(objects: StoreObjects, index: Callable[[], pa.Table], **changes: Any) -> SegmentManifest:
    arguments: dict[str, Any] = {
        "source": {"kind": "idx", "size": 123},
        "input_shape": (28, 28),
        "input_dtype": "uint8",
        "unit_rows": None,
        "choose_unit_rows": lambda rows: rows // 2,
    }
    return prepare_segment(objects, "s0000", index=index, **{**arguments, **changes})


def test_a_root_is_made_once_and_found_again(objects: StoreObjects) -> None:
    prepare_root(objects, ["cat", "dog"])
    before = all_objects(objects)
    prepare_root(objects, ("cat", "dog"))
    assert json.loads(before["softcask.json"])["class_names"] == ["cat", "dog"]
    assert all_objects(objects) == before
    assert list(before) == ["softcask.json"]


@pytest.mark.parametrize("names", [["dog", "cat"], ["cat", "dog", "cow"], ["cat", "Dog"]])
def test_a_store_about_other_classes_is_refused_and_left_as_it_is(
    objects: StoreObjects, names: list[str]
) -> None:
    prepare_root(objects, ["cat", "dog"])
    before = all_objects(objects)
    with pytest.raises(ManifestMismatch, match="class_names: found") as raised:
        prepare_root(objects, names)
    assert '["cat", "dog"]' in str(raised.value)
    assert all_objects(objects) == before


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(objects: StoreObjects) -> None:
    for name in ("thesis.tex", "figures"):
        objects.publish(name, b"precious")
    with pytest.raises(StoreError, match="'figures' and 1 more"):
        prepare_root(objects, ["cat", "dog"])
    assert sorted(all_objects(objects)) == ["figures", "thesis.tex"]


def test_an_empty_folder_and_one_with_a_killed_writers_temporary_become_stores(tmp_path: Path) -> None:
    for name in ("empty", "begun"):
        (tmp_path / name).mkdir()
        if name == "begun":
            (tmp_path / name / ".tmp-softcask.json-0123").write_bytes(b"{")
        prepare_root(StoreObjects.at(str(tmp_path / name)), ["cat", "dog"])
        assert (tmp_path / name / "softcask.json").is_file()


def test_a_damaged_root_is_not_taken_for_none(objects: StoreObjects) -> None:
    prepare_root(objects, ["cat", "dog"])
    objects.replace(keys.ROOT, flip(objects.read(keys.ROOT), 40))
    with pytest.raises(CorruptObject, match=r"softcask\.json"):
        prepare_root(objects, ["cat", "dog"])


def test_a_segments_manifest_counts_what_its_table_holds(objects: StoreObjects) -> None:
    table = rows_table(10, quarantined=[0, 4])
    segment = prepare(objects, Index(table), unit_rows=4)
    labelled = sum(label is not None for label in table["label"].to_pylist())
    assert (segment.rows, segment.quarantined, segment.labelled) == (10, 2, labelled)
    assert (segment.unit_rows, segment.input_shape, segment.input_dtype) == (4, (28, 28), "uint8")
    assert segment.table.check(objects.read(ROWS))
    assert read_rows(objects, segment).equals(table)


def test_rows_are_read_again_only_when_the_description_of_their_source_changed(objects: StoreObjects) -> None:
    index = Index(rows_table(10))
    made = prepare(objects, index)
    assert prepare(objects, index) == made
    assert index.calls == 1
    before = all_objects(objects)
    assert prepare(objects, index, source={"kind": "idx", "size": 124}) == made
    assert index.calls == 2
    after = all_objects(objects)
    assert [key for key in before if after[key] != before[key]] == ["runs/sources/s0000.json"]
    assert prepare(objects, index, source={"kind": "idx", "size": 124}) == made
    assert index.calls == 2


def test_the_unit_length_is_chosen_once_and_kept(objects: StoreObjects) -> None:
    index = Index(rows_table(10))
    assert prepare(objects, index).unit_rows == 5
    assert prepare(objects, index, choose_unit_rows=lambda _: 3).unit_rows == 5
    assert prepare(objects, index, unit_rows=5).unit_rows == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit_rows": 4}, "unit_rows: found 4, expected 5"),
        ({"input_dtype": "float32"}, 'input_dtype: found "float32", expected "uint8"'),
        ({"input_shape": (28, 29)}, r"input_shape: found \[28, 29\], expected \[28, 28\]"),
    ],
)
def test_a_segment_made_otherwise_is_refused_field_by_field(
    objects: StoreObjects, change: dict[str, Any], said: str
) -> None:
    index = Index(rows_table(10))
    prepare(objects, index)
    with pytest.raises(ManifestMismatch, match=said):
        prepare(objects, index, **change)


def changed(name: str, row: int, value: Any) -> pa.Table:
    rows = rows_table(10, quarantined=[4]).to_pylist()
    rows[row][name] = value
    return pa.Table.from_pylist(rows, schema=tables.ROWS)


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        (changed("sample_id", 3, "x"), ["sample_id: differs in 1 rows, first in row 3 (found 'x', expected"]),
        (changed("label", 1, 7), ["label: differs in 1 rows, first in row 1 (found 7, expected 1)"]),
        (changed("label", 1, None), ["label: differs in 1 rows, first in row 1 (found None, expected 1)"]),
        (changed("label", 2, 7), ["label: differs in 1 rows, first in row 2 (found 7, expected None)"]),
        (changed("content_hash", 9, bytes(16)), [f"row 9 (found {'00' * 16}, expected {'09' * 16})"]),
        (changed("quarantine", 4, None), ["quarantine: differs in 1 rows, first in row 4 (found None"]),
        (rows_table(9, quarantined=[4]), ["rows: found 9, expected 10"]),
        (rows_table(10, quarantined=[4], first=1), ["differs in 9 rows", "differs in 10 rows"]),
    ],
)
def test_other_rows_are_refused_with_the_column_and_the_first_row_that_differs(
    objects: StoreObjects, table: pa.Table, lines: list[str]
) -> None:
    prepare(objects, Index(rows_table(10, quarantined=[4])))
    before = all_objects(objects)
    with pytest.raises(ManifestMismatch) as raised:
        prepare(objects, Index(table), source={"kind": "idx", "size": 124})
    for line in lines:
        assert line in str(raised.value)
    assert all_objects(objects) == before


def test_rows_that_a_writer_left_before_its_manifest_are_replaced(objects: StoreObjects) -> None:
    for left in (tables.to_bytes(rows_table(3)), b"half a fi"):
        objects.replace(ROWS, left)
        table = rows_table(10)
        segment = prepare(objects, Index(table))
        assert read_rows(objects, segment).equals(table)
        Path(objects.path(SEGMENT)).unlink()


def test_equal_rows_that_stand_already_are_adopted_byte_for_byte(objects: StoreObjects) -> None:
    """Another version of pyarrow writes other bytes of equal rows; a driver may be about to record those."""
    table = rows_table(10)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    standing = sink.getvalue().to_pybytes()
    objects.publish(ROWS, standing)
    segment = prepare(objects, Index(table))
    assert objects.read(ROWS) == standing
    assert read_rows(objects, segment).equals(table)


def test_whoever_publishes_the_manifest_first_settles_the_rows_for_all(objects: StoreObjects) -> None:
    first, second = rows_table(10), rows_table(10)

    def overtaken() -> pa.Table:
        prepare(objects, Index(first), unit_rows=2)
        return second

    segment = prepare(objects, overtaken)
    assert segment.unit_rows == 2
    assert read_rows(objects, segment).equals(first)


def test_damaged_rows_are_named(objects: StoreObjects) -> None:
    segment = prepare(objects, Index(rows_table(10)))
    objects.replace(ROWS, flip(objects.read(ROWS), 100))
    with pytest.raises(CorruptObject, match=ROWS):
        read_rows(objects, segment)


def test_a_length_of_units_that_suits_no_chunks_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    objects = StoreObjects.at(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="units of 5003 rows"):
        prepare_segment(
            objects,
            "s0000",
            source={"kind": "made"},
            input_shape=(2, 2),
            input_dtype="uint8",
            unit_rows=5003,
            index=lambda: pytest.fail("rows were read"),
            choose_unit_rows=lambda _: 8,
            columns=Dense16().columns(1000),
        )
    assert objects.names("") == []
