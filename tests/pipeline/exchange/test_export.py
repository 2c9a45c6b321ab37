"""Exported soft targets, read back by those they are for, against float64 formulas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from tests.stores import MadeStore, all_objects, sealed_store

from softcask.pipeline.exchange import export as export_module
from softcask.pipeline.exchange.destination import MANIFEST, writing
from softcask.pipeline.exchange.export import Shape, export, top_of
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.storage_schemas.errors import ConfigError, ExchangeError, StoreAccess

ATOL = 1e-3  # fp16


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "cask"))


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def targets_of(made: MadeStore, *names: str, **options: Any) -> SoftTargets:
    return SoftTargets(open_store(made.objects.uri, allow_partial=True), names or None, **options)


def softmax(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def mean_of_members(made: MadeStore, temperature: float = 1.0) -> NDArray[np.float64]:
    parts = [softmax(made.readable_logits(name), temperature) for name in ("alpha", "beta")]
    return (parts[0] + parts[1]) / 2


def readable_ids() -> list[str]:
    return [f"id-{row:03d}" for row in range(20) if row != 5]


def test_pandas_reads_a_row_a_sample_with_its_label_and_a_list_of_probabilities(
    made: MadeStore, tmp_path: Path
) -> None:
    report = export(targets_of(made), str(tmp_path / "out.parquet"), shape=Shape(temperature=4.0))
    frame = pd.read_parquet(tmp_path / "out.parquet", dtype_backend="numpy_nullable")
    assert list(frame.columns) == ["sample_id", "label", "probabilities"]
    assert frame["sample_id"].tolist() == readable_ids()
    assert frame["label"].fillna(-1).tolist() == [-1 if r % 3 == 2 else r % 2 for r in range(20) if r != 5]
    np.testing.assert_allclose(np.stack(frame["probabilities"]), mean_of_members(made, 4.0), atol=ATOL)
    assert report.rows == 19
    assert report.bytes == (tmp_path / "out.parquet").stat().st_size


def test_datasets_reads_lists_of_fixed_length(
    made: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    export(targets_of(made), str(tmp_path / "out"), file_bytes=1)
    found = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "out" / "*.parquet"),
        cache_dir=str(tmp_path / "hf"),
        split="train",
    )
    kept = found.features["probabilities"]
    assert (kept.feature.dtype, kept.length) == ("float32", 3)
    assert found["sample_id"][:] == readable_ids()
    np.testing.assert_allclose(np.array(found["probabilities"][:]), mean_of_members(made), atol=ATOL)


def test_duckdb_and_polars_read_a_folder_of_several_files(
    made: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_BLOCK_BYTES", 5 * 3 * 4)
    report = export(targets_of(made), str(tmp_path / "out"), shape=Shape(top_k=2), file_bytes=1)
    assert [file.rows for file in report.files] == [5, 5, 5, 4]
    rows = duckdb.read_parquet(f"{tmp_path}/out/*.parquet").order("sample_id").fetchall()
    assert [row[0] for row in rows] == readable_ids()
    expected = mean_of_members(made)
    order = np.argsort(-expected, axis=1)[:, :2]
    np.testing.assert_array_equal([row[2] for row in rows], order)
    np.testing.assert_allclose(
        [row[3] for row in rows], np.take_along_axis(expected, order, axis=1), atol=ATOL
    )
    frame = pl.read_parquet(tmp_path / "out" / "*.parquet").sort("sample_id")
    np.testing.assert_array_equal(frame["classes"].to_numpy(), order)


def test_a_folder_says_what_is_in_it_and_with_which_checksums(made: MadeStore, tmp_path: Path) -> None:
    export(targets_of(made, rule="geometric", weights=[1, 3]), str(tmp_path / "out"))
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    (file,) = manifest["files"]
    data = (tmp_path / "out" / file["name"]).read_bytes()
    assert (file["rows"], file["bytes"], file["crc32c"]) == (19, len(data), f"{crc32c(data):08x}")
    facts = json.loads(pq.read_schema(tmp_path / "out" / file["name"]).metadata[b"softcask"])
    for found in (manifest, facts):
        assert found["class_names"] == ["class 0", "class 1", "class 2"]
        assert (found["rule"], found["weights"], found["temperature"]) == ("geometric", [0.25, 0.75], 1.0)
        assert sorted(found["teachers"]) == ["alpha", "beta"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cask", "out"]


def test_classes_are_columns_where_that_is_asked_for(made: MadeStore, tmp_path: Path) -> None:
    shape = Shape(values="logits", wide=True)
    export(targets_of(made, "beta"), str(tmp_path / "out.parquet"), shape=shape)
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.columns) == ["sample_id", "label", "class 0", "class 1", "class 2"]
    found = frame[["class 0", "class 1", "class 2"]].to_numpy()
    np.testing.assert_allclose(found, made.readable_logits("beta"), atol=4 * ATOL)


def test_chosen_rows_come_in_the_order_asked_for(made: MadeStore, tmp_path: Path) -> None:
    export(targets_of(made), str(tmp_path / "out.parquet"), rows_N=np.array([7, 0, 7]))
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["sample_id"].tolist() == ["id-008", "id-000", "id-008"]
    np.testing.assert_allclose(np.stack(frame["probabilities"]), mean_of_members(made)[[7, 0, 7]], atol=ATOL)


def test_rows_that_a_teacher_has_not_labelled_yet_are_left_out_and_counted(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "cask"))
    made.add_segment(20)
    made.add_teacher("alpha")
    made.commit("alpha", 1)
    report = export(targets_of(made), str(tmp_path / "out.parquet"))
    assert (report.rows, report.skipped) == (8, 12)
    assert pd.read_parquet(tmp_path / "out.parquet")["sample_id"].tolist() == [
        f"id-{r:03d}" for r in range(8, 16)
    ]


def test_no_rows_make_a_file_of_none(made: MadeStore, tmp_path: Path) -> None:
    export(targets_of(made), str(tmp_path / "out.parquet"), rows_N=np.array([], dtype=np.int64))
    assert pd.read_parquet(tmp_path / "out.parquet").shape == (0, 3)


def test_what_stands_is_replaced_only_when_told(made: MadeStore, tmp_path: Path) -> None:
    for name in ("out.parquet", "out"):
        export(targets_of(made), str(tmp_path / name), file_bytes=1)
        with pytest.raises(ExchangeError, match="stands already.*--overwrite"):
            export(targets_of(made), str(tmp_path / name))
        export(targets_of(made), str(tmp_path / name), rows_N=np.arange(2), overwrite=True)
        assert len(pd.read_parquet(tmp_path / name)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cask", "out", "out.parquet"]


def test_a_folder_with_anything_else_in_it_is_never_replaced(made: MadeStore, tmp_path: Path) -> None:
    export(targets_of(made), str(tmp_path / "out"))
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(ExchangeError, match=r"holds 'thesis\.tex', which no export made"):
        export(targets_of(made), str(tmp_path / "out"), overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_a_folder_is_not_replaced_by_a_file(made: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "out.parquet" / "mine").mkdir(parents=True)
    with pytest.raises(ExchangeError, match="is a folder, where a file is to be written"):
        export(targets_of(made), str(tmp_path / "out.parquet"), overwrite=True)


@pytest.mark.parametrize("name", ["out.parquet", "out"])
def test_an_export_that_fails_half_way_leaves_nothing_behind(
    name: str, made: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_BLOCK_BYTES", 5 * 3 * 4)

    def fail(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    for place in (str(tmp_path / name), f"memory://{name}"):
        with pytest.raises(KeyboardInterrupt):
            export(targets_of(made), place, file_bytes=1, progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["cask"]
    assert fsspec.filesystem("memory").find("/") == []


def test_a_url_gets_the_same_files_and_its_manifest_last(made: MadeStore, tmp_path: Path) -> None:
    export(targets_of(made), str(tmp_path / "out"), file_bytes=1)
    export(targets_of(made), "memory://exports/out", file_bytes=1)
    memory = fsspec.filesystem("memory")
    local = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.rsplit("/", 1)[-1]: memory.cat_file(path) for path in memory.find("/exports/out")} == local


def test_a_smaller_export_to_a_url_takes_the_larger_one_away(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_BLOCK_BYTES", 5 * 3 * 4)
    export(targets_of(made), "memory://exports/out", file_bytes=1)
    export(targets_of(made), "memory://exports/out", rows_N=np.arange(3), overwrite=True)
    names = [path.rsplit("/", 1)[-1] for path in fsspec.filesystem("memory").find("/exports/out")]
    assert names == [MANIFEST, "part-00000.parquet"]


def test_a_place_that_cannot_be_written_to_is_named(made: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAccess, match=r"could not write .*file/out\.parquet"):
        export(targets_of(made), str(tmp_path / "file" / "out.parquet"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(top_k=4), "the top 4 of 3 classes"),
        (Shape(top_k=0), "expected 1 to 3"),
        (Shape(top_k=2, wide=True), "cannot be columns"),
        (Shape(temperature=-1.0), "temperature"),
    ],
)
def test_a_shape_that_makes_no_table_is_refused_before_anything_is_written(
    shape: Shape, message: str, made: MadeStore, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export(targets_of(made), str(tmp_path / "out.parquet"), shape=shape)
    assert not (tmp_path / "out.parquet").exists()


def test_of_equal_values_the_lower_class_comes_first() -> None:
    values = np.array([[0.2, 0.5, 0.5, 0.1], [0.1, 0.1, 0.1, 0.7]], dtype=np.float32)
    np.testing.assert_array_equal(top_of(values, 3), [[1, 2, 0], [3, 0, 1]])
    np.testing.assert_array_equal(top_of(values, 4), [[1, 2, 0, 3], [3, 0, 1, 2]])


def test_the_block_is_bounded_whatever_the_number_of_rows(
    made: MadeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_BLOCK_BYTES", 4 * 3 * 4)
    targets, asked = targets_of(made), []
    whole = targets.probabilities

    def watched(rows_B: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        asked.append(len(rows_B))
        return whole(rows_B, temperature)

    monkeypatch.setattr(targets, "probabilities", watched)
    export(targets, str(tmp_path / "out.parquet"))
    assert asked == [4, 4, 4, 4, 3]
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 5


def test_nothing_stands_before_the_block_ends(tmp_path: Path) -> None:
    with writing(str(tmp_path / "out.parquet"), facts={}) as to:
        to.next_file().write_bytes(b"data")
        to.complete(to.next_file(), 1)
        assert not (tmp_path / "out.parquet").exists()
    assert (tmp_path / "out.parquet").read_bytes() == b"data"


@pytest.mark.parametrize("place", ["x.parquet", "teachers/alpha/x", "new/folder/x.parquet", ""])
def test_no_export_goes_into_a_store(made: MadeStore, place: str) -> None:
    before = all_objects(made.objects)
    with pytest.raises(ExchangeError, match="lies in the store at .*cask, in which"):
        export(targets_of(made), f"{made.objects.uri}/{place}".rstrip("/"), overwrite=True)
    assert all_objects(made.objects) == before


def test_no_export_goes_into_a_store_elsewhere(made: MadeStore) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/cask/softcask.json", b"{}")
    with pytest.raises(ExchangeError, match="lies in the store at /bucket/cask"):
        export(targets_of(made), "memory://bucket/cask/some/targets")
