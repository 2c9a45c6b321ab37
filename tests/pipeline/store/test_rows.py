from __future__ import annotations

from tests.stores import rows_table

from softcask.pipeline.store.rows import Rows


def test_rows_are_the_readable_ones_of_all_segments_in_order() -> None:
    rows = Rows.of([rows_table(5, quarantined=[0, 3]), rows_table(4, quarantined=[1], first=5)])
    assert rows.sample_ids.tolist() == ["id-001", "id-002", "id-004", "id-005", "id-007", "id-008"]
    assert rows.segments.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.positions.tolist() == [1, 2, 4, 0, 2, 3]
    assert rows.labels.tolist() == [1, -1, 0, 0, -1, 1]
    assert [bytes(value)[0] for value in rows.content_hashes] == [1, 2, 4, 5, 7, 8]
    assert len(rows) == 6


def test_rows_are_found_by_id_in_any_order_and_unknown_or_quarantined_ones_are_not() -> None:
    rows = Rows.of([rows_table(5, quarantined=[3])])
    assert rows.find(["id-004", "id-000", "id-003", "nobody", "id-004"]).tolist() == [3, 0, -1, -1, 3]
    assert rows.find([]).tolist() == []


def test_no_segments_and_segments_of_quarantined_rows_only_have_no_rows() -> None:
    for tables in ([], [rows_table(3, quarantined=range(3))]):
        rows = Rows.of(tables)
        assert len(rows) == len(rows.labels) == len(rows.content_hashes) == len(rows.positions) == 0
        assert rows.find(["id-000"]).tolist() == [-1]
