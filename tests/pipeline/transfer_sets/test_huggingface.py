from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.huggingface import HuggingFaceOptions
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.storage_schemas.errors import TransferSetError

datasets.disable_progress_bars()

NAMES = ["cat", "dog", "eel"]
LABELS_B = np.array([2, 0, 1, 1, -1, 0])
PIXELS_BHWC = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
ARRAYS_BXY = np.arange(36, dtype=np.float32).reshape(6, 2, 3) / 7
TEXTS = ["a", "", "héllo", "x" * 300, "\0", "e"]


def dataset(rows: int = 6) -> datasets.Dataset:
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=NAMES),
        array=datasets.Array2D((2, 3), "float32"),
        text=datasets.Value("string"),
        tokens=datasets.List(datasets.Value("int32"), length=4),
        name=datasets.Value("string"),
    )
    columns = {
        "image": [Image.fromarray(pixels) for pixels in PIXELS_BHWC],
        "label": LABELS_B.tolist(),
        "array": ARRAYS_BXY.tolist(),
        "text": TEXTS,
        "tokens": [[row] * 4 for row in range(6)],
        "name": [f"n{row}" for row in range(6)],
    }
    return datasets.Dataset.from_dict({key: values[:rows] for key, values in columns.items()}, features)


def saved(folder: Path, rows: int = 6, shards: int = 2) -> str:
    dataset(rows).save_to_disk(str(folder), num_shards=shards)
    return str(folder)


def opened(path: Any, **options: Any) -> TransferSet:
    return HuggingFaceOptions(path=str(path), **({"input": "text"} | options)).open()


class OneDataset(TransferSetContract):
    input = ""

    def options(self, folder: Path) -> HuggingFaceOptions:
        return HuggingFaceOptions(path=saved(folder / "pets"), input=self.input, label="label")

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        saved(folder / "pets", rows=5)


class TestImages(OneDataset):
    input = "image"

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC


class TestArrays(OneDataset):
    input = "array"

    def expected_BX(self) -> NDArray[Any]:
        return ARRAYS_BXY


class TestText(OneDataset):
    input = "text"

    def expected_BX(self) -> NDArray[Any]:
        return np.array(TEXTS, TEXT)


class TestLists(OneDataset):
    input = "tokens"

    def expected_BX(self) -> NDArray[Any]:
        return np.repeat(np.arange(6, dtype=np.int32)[:, None], 4, axis=1)


class TestASnapshotOfTheHub(TransferSetContract):
    """Parquet files that are links to blobs elsewhere, as the hub's cache has them."""

    def options(self, folder: Path) -> HuggingFaceOptions:
        snapshot, blobs = folder / "snapshot", folder / "blobs"
        for place in (snapshot, blobs):
            shutil.rmtree(place, ignore_errors=True)
        (snapshot / "data").mkdir(parents=True)
        blobs.mkdir()
        (snapshot / "README.md").write_text("---\nconfigs: []\n---\n")
        for number, name in enumerate(
            ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
        ):
            dataset().select(range(number * 3, number * 3 + 3) if number < 2 else [0]).to_parquet(
                str(blobs / str(number))
            )
            (snapshot / "data" / f"{name}.parquet").symlink_to(Path("..", "..", "blobs", str(number)))
        return HuggingFaceOptions(path=str(snapshot), split="train", input="image", label="label")

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        dataset().to_parquet(str(folder / "blobs" / "1"))


def test_neither_the_package_datasets_nor_the_hub_has_a_part_in_reading(tmp_path: Path) -> None:
    path = saved(tmp_path / "pets")
    script = (
        "import sys; sys.modules['datasets'] = sys.modules['huggingface_hub'] = None\n"
        "from softcask.pipeline.transfer_sets.huggingface import HuggingFaceOptions\n"
        "import numpy\n"
        f"source = HuggingFaceOptions(path={path!r}, input='array').open()\n"
        "print(source.read(numpy.arange(6)).inputs_B.tolist())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(printed) == ARRAYS_BXY.tolist()


def test_made_ids_are_the_splits_and_do_not_depend_on_shards_or_format(tmp_path: Path) -> None:
    datasets.DatasetDict(train=dataset(), test=dataset(2)).save_to_disk(
        str(tmp_path / "dict"), num_shards={"train": 3, "test": 1}
    )
    (tmp_path / "loose" / "train").mkdir(parents=True)
    dataset().to_parquet(str(tmp_path / "loose" / "train" / "0.parquet"))
    expected = [f"train-{row:08d}" for row in range(6)]
    assert opened(tmp_path / "dict", split="train").sample_ids(0, 6) == expected
    assert opened(tmp_path / "loose").sample_ids(0, 6) == expected
    assert opened(saved(tmp_path / "train")).sample_ids(0, 6) == expected
    assert opened(tmp_path / "dict", split="test", id_prefix="t").sample_ids(0, 2) == [
        "t-00000000",
        "t-00000001",
    ]
    assert list(opened(tmp_path / "dict", split="train", id="name").sample_ids(1, 3)) == ["n1", "n2"]


def test_splits_must_be_named_where_there_are_several(tmp_path: Path) -> None:
    datasets.DatasetDict(train=dataset(), test=dataset(2)).save_to_disk(str(tmp_path / "dict"))
    with pytest.raises(
        TransferSetError, match="dict: no split is named; it has train, test; set split to one"
    ):
        opened(tmp_path / "dict")
    with pytest.raises(TransferSetError, match="no split 'dev'; it has train, test"):
        opened(tmp_path / "dict", split="dev")
    (tmp_path / "loose").mkdir()
    for name in ("train-0", "validation", "latest"):
        dataset(2).to_parquet(str(tmp_path / "loose" / f"{name}.parquet"))
    with pytest.raises(TransferSetError, match="no split is named; it has train, validation"):
        opened(tmp_path / "loose")
    with pytest.raises(TransferSetError, match="no split 'test'; it has train, validation"):
        opened(tmp_path / "loose", split="test")
    assert len(opened(tmp_path / "loose", split="latest")) == 2


def test_arrow_files_as_the_cache_of_datasets_has_them_are_read(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "pets-train.arrow"), "wb") as sink:
        table = pa.table({"text": TEXTS})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    with (
        pa.OSFile(str(tmp_path / "pets-test.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as file,
    ):
        file.write_table(table.slice(0, 2))
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(b"of no dataset")
    assert opened(tmp_path, split="train").read(np.array([5, 3, 0])).inputs_B.tolist() == [
        "e",
        "x" * 300,
        "a",
    ]
    assert opened(tmp_path, split="test").read(np.array([1])).inputs_B.tolist() == [""]


def test_datasets_are_read_from_any_filesystem(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(saved(tmp_path / "pets"), "/hub/pets", recursive=True)
    source = opened("memory://hub/pets", input="image", label="label")
    np.testing.assert_array_equal(source.read(np.array([4, 1])).inputs_B, PIXELS_BHWC[[4, 1]])
    memory.rm("/hub", recursive=True)


def test_label_names_put_classes_into_the_order_of_the_teachers(tmp_path: Path) -> None:
    path = saved(tmp_path / "pets")
    labels_B = opened(path, label="label", label_names=["bee", "eel", "dog", "cat"]).labels(0, 6)
    assert labels_B is not None and labels_B.tolist() == [1, 3, 2, 2, -1, 3]
    short = opened(path, label="label", label_names=["eel", "dog"])
    with pytest.raises(
        TransferSetError, match="row 1 is of class 'cat', which is none of the 2 in label_names"
    ):
        short.labels(0, 6)


def test_images_without_bytes_are_quarantined(tmp_path: Path) -> None:
    cells = pa.array(
        [{"bytes": None, "path": "/etc/passwd"}, None],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    datasets.Dataset(pa.table({"image": cells})).save_to_disk(str(tmp_path / "d"))
    batch = opened(tmp_path / "d", input="image", image={"height": 2, "width": 2}).read(np.arange(2))
    assert batch.problems == dict.fromkeys((0, 1), "no bytes (null, or no more than the path of a file)")


def test_a_folder_that_is_no_dataset_or_a_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferSetError, match="nowhere: no such folder; expected the folder of a dataset"):
        opened(tmp_path / "nowhere")
    with pytest.raises(TransferSetError, match=r"no file that ends in \.parquet or \.arrow"):
        opened(tmp_path)
    folder = Path(saved(tmp_path / "pets"))
    state = (folder / "state.json").read_text()
    for damaged in ('{"_data_files": [{"filename": "../../other.arrow"}]}', "{}", "[]", "{"):
        (folder / "state.json").write_text(damaged)
        with pytest.raises(TransferSetError, match=r"pets/state\.json: "):
            opened(folder)
    (folder / "state.json").write_text(state)
    shard = folder / "data-00001-of-00002.arrow"
    whole = shard.read_bytes()
    for damaged_bytes in (b"", whole[:100], whole[: len(whole) // 2], b"PAR1" + whole[4:]):
        shard.write_bytes(damaged_bytes)
        with pytest.raises(TransferSetError, match=r"data-00001-of-00002\.arrow: cannot be read"):
            opened(folder).read(np.arange(6))
    shard.unlink()
    with pytest.raises(TransferSetError, match=r"data-00001-of-00002\.arrow: no such file"):
        opened(folder)
