from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.pipeline.transfer_sets.base import RowBatch
from softcask.pipeline.transfer_sets.indexing import content_hashes, index_rows
from softcask.pipeline.transfer_sets.text import TEXT, dtype_name
from softcask.storage_schemas.errors import QuarantineExceeded, TransferSetError
from softcask.storage_schemas.tables import ROWS


@dataclass(kw_only=True)
class Rows:
    """A transfer set of bytes that counts how often each row is read."""

    ids: Sequence[str]
    classes: Sequence[int] | None = None
    problems: Mapping[int, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] = (2,)
    input_dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def sample_ids(self, start: int, stop: int) -> Sequence[str]:
        return self.ids[start:stop]

    def labels(self, start: int, stop: int) -> NDArray[np.int64] | None:
        return None if self.classes is None else np.array(self.classes[start:stop])

    def read(self, positions_B: NDArray[np.int64]) -> RowBatch:
        self.asked += positions_B.tolist()
        bad = {row: self.problems[at] for row, at in enumerate(positions_B.tolist()) if at in self.problems}
        return RowBatch(inputs_B=np.stack([positions_B] * 2, axis=1).astype(np.uint8), problems=bad)

    def describe(self) -> dict[str, Any]:
        return {"kind": "rows", "files": {"images": {"name": "x.bin"}, "labels": {"name": "y.bin"}}}

    def unchanged(self) -> bool:
        return True


def names(rows: int) -> list[str]:
    return [f"r{row}" for row in range(rows)]


def index(source: Rows, **options: Any) -> Any:
    return index_rows(source, **({"num_classes": 3, "max_quarantined": 0.0, "batch_rows": 4} | options))


def test_every_row_is_read_once_and_becomes_a_row_of_the_table_in_order() -> None:
    source = Rows(ids=names(10), classes=[0, 1, 2, -1, 0, 1, 2, -1, 0, 1])
    done: list[int] = []
    table = index(source, progress=done.append)
    assert source.asked == list(range(10)) and done == [4, 4, 2]
    assert table.schema.equals(ROWS)
    assert table["sample_id"].to_pylist() == names(10)
    assert table["label"].to_pylist() == [0, 1, 2, None, 0, 1, 2, None, 0, 1]
    assert table["quarantine"].null_count == 10
    expected = [hashlib.sha256(b"|u1 [2] " + bytes([row, row])).digest()[:16] for row in range(10)]
    assert table["content_hash"].to_pylist() == expected


def test_the_table_does_not_depend_on_how_many_rows_are_read_at_once() -> None:
    tables = [index(Rows(ids=names(10), classes=[1] * 10), batch_rows=rows) for rows in (1, 3, 10, 4096)]
    assert all(table.equals(tables[0]) for table in tables)


def test_without_labels_all_are_null() -> None:
    assert index(Rows(ids=names(5)))["label"].null_count == 5


def test_unreadable_rows_are_kept_with_their_reason_and_without_a_hash() -> None:
    table = index(Rows(ids=names(8), problems={2: "half a file", 5: "no header"}), max_quarantined=0.25)
    assert table["quarantine"].to_pylist() == [None, None, "half a file", None, None, "no header", None, None]
    assert [digest is None for digest in table["content_hash"].to_pylist()] == [
        row in (2, 5) for row in range(8)
    ]


def test_too_many_unreadable_rows_stop_the_run_with_how_many_and_why() -> None:
    problems = dict.fromkeys(range(1, 6), "half a file")
    with pytest.raises(QuarantineExceeded) as error:
        index(Rows(ids=names(8), problems=problems), max_quarantined=0.5)
    assert str(error.value) == (
        "x.bin, y.bin: 5 of 8 rows (62.50%) cannot be read: 'r1': half a file; 'r2': half a file; "
        "'r3': half a file; expected at most 50.00%; repair them or raise transfer_set.max_quarantined"
    )
    with pytest.raises(QuarantineExceeded, match=r"1 of 8 rows \(12\.50%\)"):
        index(Rows(ids=names(8), problems={7: "x"}))


def test_ids_that_repeat_are_refused_with_where_they_stand() -> None:
    with pytest.raises(TransferSetError) as error:
        index(Rows(ids=["a", "b", "a", "c", "b", "a", "a"]))
    assert str(error.value).startswith(
        "x.bin, y.bin: 2 sample ids repeat: 'a' at 0, 2, 5; 'b' at 1, 4; expected each once"
    )


@pytest.mark.parametrize("label", [3, -2, 255, 2**40])
def test_a_label_out_of_range_is_refused_with_row_and_file(label: int) -> None:
    with pytest.raises(TransferSetError) as error:
        index(Rows(ids=names(8), classes=[0, 1, 2, -1, 0, 1, label, 9]))
    assert str(error.value).startswith(
        f"y.bin: row 'r6' (position 6) has label {label}, expected 0 to 2, or -1 for none"
    )


def test_a_set_without_rows_is_refused() -> None:
    with pytest.raises(TransferSetError, match=r"x\.bin, y\.bin: no rows; expected at least one"):
        index(Rows(ids=[]))


def test_rows_with_nan_are_quarantined_on_the_way_from_file_to_table(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0], [np.nan, 3.0]]))
    source = ArraysOptions(inputs=str(tmp_path / "x.npy")).open()
    rows = index_rows(source, num_classes=2, max_quarantined=0.5).to_pylist()
    assert rows[1] == {
        "sample_id": "x-00000001",
        "content_hash": None,
        "label": None,
        "quarantine": "input holds NaN or infinity",
    }
    assert rows[0]["content_hash"] == hashlib.sha256(b"<f8 [2] " + struct.pack("<2d", 1, 2)).digest()[:16]


def test_a_hash_is_of_type_shape_and_elements_whatever_their_order_in_memory() -> None:
    inputs_BHW = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    hashes_B = content_hashes(inputs_BHW)
    assert hashes_B.dtype == "V16" and hashes_B.shape == (4,)
    expected = hashlib.sha256(b"<i2 [3, 2] " + struct.pack("<6h", *range(6))).digest()[:16]
    assert hashes_B[0].tobytes() == expected
    for same_BHW in (
        np.asfortranarray(inputs_BHW),
        inputs_BHW.astype(">i2"),
        np.repeat(inputs_BHW, 2, 0)[::2],
    ):
        np.testing.assert_array_equal(content_hashes(same_BHW), hashes_B)


def test_a_hash_changes_with_type_shape_or_any_element() -> None:
    inputs_BF = np.zeros((1, 6), np.int16)
    other_BF = inputs_BF.copy()
    other_BF[0, 5] = 1
    variants = [
        inputs_BF,
        inputs_BF.view(np.uint16),
        inputs_BF.reshape(1, 3, 2),
        inputs_BF.reshape(1, 2, 3),
        other_BF,
    ]
    assert len({content_hashes(variant)[0].tobytes() for variant in variants}) == len(variants)


def test_no_rows_have_no_hashes() -> None:
    assert content_hashes(np.zeros((0, 3))).shape == (0,)


def test_a_hash_of_text_is_of_each_strings_length_and_its_utf8_bytes() -> None:
    def expected(shape: str, *strings: bytes) -> bytes:
        parts = b"".join(struct.pack("<Q", len(each)) + each for each in strings)
        return hashlib.sha256(f"text {shape} ".encode() + parts).digest()[:16]

    texts_B = np.array(["h\u00e9llo", "", "h\u00e9llo\0"], dtype=TEXT)
    found = [digest.tobytes() for digest in content_hashes(texts_B)]
    assert found == [
        expected("[]", "h\u00e9llo".encode()),
        expected("[]", b""),
        expected("[]", b"h\xc3\xa9llo\0"),
    ]
    pairs_B2 = np.array([["ab", "c"], ["a", "bc"]], dtype=TEXT)
    found = [digest.tobytes() for digest in content_hashes(pairs_B2)]
    assert found == [expected("[2]", b"ab", b"c"), expected("[2]", b"a", b"bc")]


def test_a_store_calls_text_text_and_numbers_what_numpy_calls_them() -> None:
    assert dtype_name(TEXT) == "text" and dtype_name(np.dtype(np.uint8)) == "uint8"


def test_rows_of_many_bytes_are_read_a_few_at_a_time() -> None:
    source = Rows(ids=names(9), input_shape=(30 << 20,))
    done: list[int] = []
    index_rows(source, num_classes=3, max_quarantined=0.0, progress=done.append)
    assert done == [2, 2, 2, 2, 1]
