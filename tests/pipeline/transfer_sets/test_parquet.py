from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.pipeline.transfer_sets.parquet import ParquetOptions
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.storage_schemas.errors import TransferSetError

LABELS_B = np.array([3, 1, 4, 1, 5, 9, 2])
NUMBERS_BF = np.arange(21, dtype=np.float32).reshape(7, 3) / 7
TEXTS = ["a", "", "héllo", "x" * 300, "中文", "\0", "e"]
GREYS_BHW = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, columns: dict[str, Any], group_rows: int = 3) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    return str(path)


def opened(path: Path, columns: dict[str, Any], **options: Any) -> TransferSet:
    return ParquetOptions(path=write(path, columns), **({"input": "x"} | options)).open()


def fixed(values_BF: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values_BF.reshape(-1)), values_BF.shape[1])


class OneFile(TransferSetContract):
    """Of rows 0 to 7; a subclass says how they are written."""

    def columns(self) -> dict[str, Any]:
        raise NotImplementedError

    def input(self) -> Any:
        return "x"

    def options(self, folder: Path) -> ParquetOptions:
        path = write(folder / "rows.parquet", self.columns() | {"y": LABELS_B})
        return ParquetOptions(path=path, input=self.input(), label="y", image={"mode": "L"})

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        columns = self.columns() | {"y": LABELS_B}
        more = {name: pa.concat_arrays([pa.array(column)] * 2) for name, column in columns.items()}
        write(folder / "rows.parquet", more)


class TestListsOfOneLength(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": NUMBERS_BF.tolist()}

    def expected_BX(self) -> NDArray[Any]:
        return NUMBERS_BF.astype(np.float64)  # pyarrow keeps Python's floats as doubles


class TestFixedSizeLists(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": fixed(NUMBERS_BF)}

    def expected_BX(self) -> NDArray[Any]:
        return NUMBERS_BF


class TestNestedLists(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": pa.array(GREYS_BHW.tolist(), pa.list_(pa.list_(pa.uint8())))}

    def expected_BX(self) -> NDArray[Any]:
        return GREYS_BHW


class TestColumnsOfANumberEach(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"a": NUMBERS_BF[:, 0], "b": np.arange(7, dtype=np.int16), "c": NUMBERS_BF[:, 2]}

    def input(self) -> Any:
        return ["c", "b"]

    def expected_BX(self) -> NDArray[Any]:
        return np.array([[NUMBERS_BF[row, 2], row] for row in range(7)], np.float32)


class TestText(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": TEXTS}

    def expected_BX(self) -> NDArray[Any]:
        return np.array(TEXTS, TEXT)


class TestPairsOfText(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": pa.array(TEXTS, pa.large_string()), "z": pa.array(TEXTS[::-1]).dictionary_encode()}

    def input(self) -> Any:
        return ["x", "z"]

    def expected_BX(self) -> NDArray[Any]:
        return np.array([list(pair) for pair in zip(TEXTS, TEXTS[::-1], strict=True)], TEXT)


class TestImages(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": [png(pixels) for pixels in GREYS_BHW]}

    def expected_BX(self) -> NDArray[Any]:
        return GREYS_BHW


class TestImagesAsStructs(OneFile):
    def columns(self) -> dict[str, Any]:
        return {"x": pa.array([{"bytes": png(pixels), "path": "of/no/use.png"} for pixels in GREYS_BHW])}

    def expected_BX(self) -> NDArray[Any]:
        return GREYS_BHW


class TestSeveralFiles(TransferSetContract):
    def options(self, folder: Path) -> ParquetOptions:
        for first, name in enumerate(("part-2", "part-10", "deep/part-1")):
            path = folder / "rows" / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = slice(*{0: (2, 4), 1: (4, 7), 2: (0, 2)}[first])
            write(path, {"x": fixed(NUMBERS_BF[rows]), "y": LABELS_B[rows]}, 2)
        (folder / "rows" / ".hidden.parquet").write_bytes(b"")
        (folder / "rows" / "_SUCCESS").write_bytes(b"")
        return ParquetOptions(path=str(folder / "rows"), input="x", label="y")

    def expected_BX(self) -> NDArray[Any]:
        return NUMBERS_BF

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        write(folder / "rows" / "part-11.parquet", {"x": fixed(NUMBERS_BF), "y": LABELS_B})


def test_ids_are_made_of_a_files_name_and_the_row_in_it_so_that_files_can_be_added(tmp_path: Path) -> None:
    options = TestSeveralFiles().options(tmp_path)
    ids = list(options.open().sample_ids(0, 7))
    assert ids == ["deep/part-1-00000000", "deep/part-1-00000001", "part-2-00000000", "part-2-00000001"] + [
        f"part-10-{row:08d}" for row in range(3)
    ]
    TestSeveralFiles().change(tmp_path)
    assert list(options.open().sample_ids(0, 9)) == [*ids, "part-11-00000000", "part-11-00000001"]
    prefixed = options.model_copy(update={"id_prefix": "all"}).open()
    assert prefixed.sample_ids(6, 8) == ["all-00000006", "all-00000007"]


@pytest.mark.parametrize(
    "path",
    [
        "memory://pq/part-{1..3}.parquet",
        "memory://pq",
        "memory://pq/part-*.parquet",
        ["memory://pq/part-1.parquet", "memory://pq/part-2.parquet", "memory://pq/part-3.parquet"],
    ],
)
def test_files_are_found_on_any_filesystem_as_range_folder_pattern_or_list(path: Any) -> None:
    memory = fsspec.filesystem("memory")
    for number in (1, 2, 3):
        stream = io.BytesIO()
        pq.write_table(pa.table({"x": fixed(NUMBERS_BF[number : number + 2])}), stream)
        memory.pipe(f"/pq/part-{number}.parquet", stream.getvalue())
    source = ParquetOptions(path=path, input="x").open()
    np.testing.assert_array_equal(source.read(np.array([5, 0, 2])).inputs_B, NUMBERS_BF[[4, 1, 2]])
    assert source.sample_ids(3, 4) == ["part-2-00000001"] and source.unchanged()
    memory.pipe("/pq/part-2.parquet", stream.getvalue())
    assert not source.unchanged()
    memory.rm("/pq", recursive=True)


def test_only_the_row_groups_asked_for_are_read_and_of_them_only_the_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, list[str]]] = []
    read = pq.ParquetFile.read_row_group

    def spy(self: Any, group: int, columns: list[str], **options: Any) -> Any:
        asked.append((group, columns))
        return read(self, group, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    columns = {"x": fixed(np.arange(200.0).reshape(100, 2)), "other": ["long"] * 100}
    source = ParquetOptions(path=write(tmp_path / "p.parquet", columns, 10), input="x").open()
    asked.clear()
    for _ in range(2):
        found_BX = source.read(np.array([95, 31, 99, 30])).inputs_B
    assert found_BX[:, 0].tolist() == [190, 62, 198, 60]
    assert asked == [(3, ["x"]), (9, ["x"])]


def test_ids_may_be_a_column_of_strings_or_integers(tmp_path: Path) -> None:
    columns = {"x": [[1], [2]], "name": ["b", "a"], "number": [7, -1]}
    assert opened(tmp_path / "p", columns, id="name").sample_ids(0, 2) == ["b", "a"]
    assert opened(tmp_path / "p", columns, id="number").sample_ids(1, 2) == ["-1"]


def test_labels_may_be_null_truths_or_names(tmp_path: Path) -> None:
    columns = {
        "x": [[1], [2], [3]],
        "some": pa.array([2, None, 0], pa.int8()),
        "true": [True, False, True],
        "name": pa.array(["dog", None, "cat"]).dictionary_encode(),
    }
    for label, expected in (("some", [2, -1, 0]), ("true", [1, 0, 1]), ("name", [1, -1, 0])):
        source = opened(tmp_path / "p", columns, label=label, label_names=["cat", "dog"])
        labels_B = source.labels(0, 3)
        assert labels_B is not None and labels_B.dtype == np.int64 and labels_B.tolist() == expected


def test_rows_of_another_length_or_with_null_or_nan_are_quarantined_and_keep_their_place(
    tmp_path: Path,
) -> None:
    rows = [[1.0, 2.0], [3.0], None, [5.0, None], [float("nan"), 6.0], [7.0, 8.0]]
    source = opened(tmp_path / "p", {"x": rows})
    batch = source.read(np.array([5, 4, 3, 2, 1, 0]))
    assert batch.inputs_B.tolist() == [[7, 8], [0, 0], [0, 0], [0, 0], [0, 0], [1, 2]]
    assert batch.problems == {
        1: "input holds NaN or infinity",
        2: "null among its numbers",
        3: "null",
        4: "a list of 1 where 2 are expected (axis 0 of [2])",
    }
    table = index_rows(source, num_classes=2, max_quarantined=1.0)
    assert table["quarantine"].null_count == 2 and len(table) == 6


def test_missing_text_is_quarantined_and_an_empty_one_is_not(tmp_path: Path) -> None:
    batch = opened(tmp_path / "p", {"x": ["", None, "c"]}).read(np.arange(3))
    assert batch.inputs_B.tolist() == ["", "", "c"] and batch.problems == {1: "x: null"}


def test_images_that_cannot_be_decoded_are_quarantined_with_the_reason(tmp_path: Path) -> None:
    whole = png(GREYS_BHW[0])
    other_size = png(np.zeros((2, 2), np.uint8))
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 5), 300, np.uint16)).save(deep, "PNG")
    cells = [whole, whole[:60], b"", None, other_size, deep.getvalue(), b"GIF89a", whole[:-20] + bytes(20)]
    batch = opened(tmp_path / "p", {"x": cells}, image={"mode": "L"}).read(np.arange(8))
    np.testing.assert_array_equal(batch.inputs_B[0], GREYS_BHW[0])
    assert not batch.inputs_B[1:].any() and set(batch.problems) == set(range(1, 8))
    assert "cannot be decoded" in batch.problems[1] and "cannot identify" in batch.problems[2]
    assert "0x" not in " ".join(batch.problems.values())
    assert batch.problems[3] == "no bytes (null, or no more than the path of a file)"
    assert batch.problems[4].startswith("shape [2, 2], expected [4, 5]; set image.height")
    assert "more than 8 bits a channel" in batch.problems[5]


def refusal(tmp_path: Path, columns: dict[str, Any], **options: Any) -> str:
    """The message with which such a file is refused, at the latest when it is indexed."""
    with pytest.raises(TransferSetError) as error:
        index_rows(opened(tmp_path / "p.parquet", columns, **options), num_classes=3, max_quarantined=1)
    return str(error.value)


def test_a_file_that_is_missing_damaged_or_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferSetError, match=r"nowhere\.parquet: no such file; check the path"):
        ParquetOptions(path=str(tmp_path / "nowhere.parquet"), input="x").open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        TransferSetError, match=r"empty: no file that ends in \.parquet or .*; check the path"
    ):
        ParquetOptions(path=str(tmp_path / "empty"), input="x").open()
    with pytest.raises(TransferSetError, match=r"\*\.parquet: no file that ends in"):
        ParquetOptions(path=str(tmp_path / "*.parquet"), input="x").open()
    with pytest.raises(TransferSetError, match=r"the range \{3\.\.1\} is empty or too long"):
        ParquetOptions(path=str(tmp_path / "{3..1}.parquet"), input="x").open()
    path = Path(write(tmp_path / "p.parquet", {"x": ["y" * 1000] * 50}, 10))
    with pytest.raises(TransferSetError, match="named twice"):
        ParquetOptions(path=(str(path), str(path)), input="x").open()
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:-9], whole[:200], bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(TransferSetError, match=r"p\.parquet: "):
            ParquetOptions(path=str(path), input="x").open()
    path.write_bytes(whole[:20] + bytes(20) + whole[40:])
    with pytest.raises(TransferSetError, match=r"p\.parquet: row group 0 cannot be read: .*; fetch or write"):
        ParquetOptions(path=str(path), input="x").open().read(np.arange(3))


def test_a_missing_column_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    columns = {"x": ["a"], "y": [0]}
    assert refusal(tmp_path, columns, input="z").endswith("no column 'z'; it has x, y; name one of these")
    assert "no column 'l'" in refusal(tmp_path, columns, label="l")
    assert "no column 'i'" in refusal(tmp_path, columns, id="i")


def test_columns_that_are_no_input_label_or_id_are_refused_with_their_type(tmp_path: Path) -> None:
    columns = {"x": [[1], [2]], "t": ["a", "b"], "f": [0.5, 1.0], "d": pa.array([0, 1], pa.date32())}
    assert "input d: date32" in refusal(tmp_path, columns, input="d")
    assert "input x: list<element: int64>, t: string; expected" in refusal(
        tmp_path, columns, input=["x", "t"]
    )
    assert "label 'f' is double, expected class indices" in refusal(tmp_path, columns, label="f")
    assert "list the class names as label_names" in refusal(tmp_path, columns, label="t")
    assert "row 1 has label 'b', which is none of the 1 names" in refusal(
        tmp_path, columns, label="t", label_names=["a"]
    )
    assert "id 'f' is double, expected strings or integers" in refusal(tmp_path, columns, id="f")


def test_ids_that_repeat_or_are_missing_and_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    columns = {"x": [[1], [2]], "i": ["a", "a"], "j": [None, "b"], "y": [0, 3]}
    assert "1 sample ids repeat: 'a' at 0, 1" in refusal(tmp_path, columns, id="i")
    assert "row 0 has no id: 'j' is null" in refusal(tmp_path, columns, id="j")
    assert "has label 3, expected 0 to 2" in refusal(tmp_path, columns, label="y")


def test_lists_whose_shape_no_row_tells_are_refused(tmp_path: Path) -> None:
    columns = {"x": pa.array([None, []], pa.list_(pa.float32()))}
    assert "none of the first rows is a list of numbers" in refusal(tmp_path, columns)
    assert "none of the first rows can be read" in refusal(tmp_path, {"x": [b"no image"]})
    empty = {"x": pa.array([], pa.string())}
    assert "no rows; expected at least one" in refusal(tmp_path, empty)


def test_files_whose_columns_differ_in_type_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", {"x": [1], "y": [1]})
    write(tmp_path / "2.parquet", {"x": [1.5], "y": ["other, and not asked for"]})
    with pytest.raises(
        TransferSetError, match=r"2\.parquet: column 'x' is double, in .*1\.parquet it is int64"
    ):
        ParquetOptions(path=str(tmp_path), input="x").open()
