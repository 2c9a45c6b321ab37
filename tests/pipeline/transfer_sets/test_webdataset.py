from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets import tar_index
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.pipeline.transfer_sets.text import TEXT
from softcask.pipeline.transfer_sets.webdataset import WebDatasetOptions
from softcask.storage_schemas.errors import TransferSetError

PIXELS_BHWC = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
LABELS_B = np.array([3, 1, 4, 1, 5, 9, 2])
TEXTS = ["a", "", "héllo", "x" * 300, "\0", "e", "f"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def images(rows: range) -> dict[str, bytes]:
    """Members of some rows, beside others that are no part of a sample."""
    found = {"__meta__": b"{}"}
    for row in rows:
        key = f"deep/folder.d/{row:04d}"
        found |= {
            f"{key}.json": b'{"other": 1}',
            f"{key}.PNG": png(PIXELS_BHWC[row]),
            f"{key}.cls": b"%d\n" % LABELS_B[row],
        }
    return found | {"README": b"no sample"}


def write(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(members))
    return path


def opened(path: Any, **options: Any) -> TransferSet:
    return WebDatasetOptions(path=str(path), **options).open()


class TestImages(TransferSetContract):
    pack = staticmethod(bytes)
    ending = "tar"

    def options(self, folder: Path) -> WebDatasetOptions:
        for number, rows in enumerate((range(3), range(3, 7))):
            (folder / f"s-{number}.{self.ending}").write_bytes(self.pack(tar(images(rows))))
        return WebDatasetOptions(path=str(folder / f"s-{{0..1}}.{self.ending}"), label="cls")

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        (folder / f"s-1.{self.ending}").write_bytes(self.pack(tar(images(range(2, 7)))))


class TestGzippedShards(TestImages):
    pack = staticmethod(gzip.compress)
    ending = "tar.gz"


class OneShard(TransferSetContract):
    def members(self) -> dict[str, bytes]:
        raise NotImplementedError

    def named(self) -> dict[str, Any]:
        raise NotImplementedError

    def options(self, folder: Path) -> WebDatasetOptions:
        return WebDatasetOptions(path=str(write(folder / "one.tar", self.members())), **self.named())

    def expected_labels_B(self) -> NDArray[np.int64] | None:
        return None

    def change(self, folder: Path) -> None:
        write(folder / "one.tar", dict(list(self.members().items())[:-2]))


class TestArrays(OneShard):
    def members(self) -> dict[str, bytes]:
        big_endian = [PIXELS_BHWC[row, 0].astype(">f4" if row % 2 else "<f4") for row in range(7)]
        return {f"{row}.npy": npy(array) for row, array in enumerate(big_endian)}

    def named(self) -> dict[str, Any]:
        return {"input": "npy"}

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC[:, 0].astype(np.float32)


class TestElements(OneShard):
    def members(self) -> dict[str, bytes]:
        return {f"{row}.bin": PIXELS_BHWC[row].astype("<i2").tobytes() for row in range(7)}

    def named(self) -> dict[str, Any]:
        return {"input": "bin", "dtype": "int16", "shape": [4, 5, 3]}

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC.astype(np.int16)


class TestText(OneShard):
    def members(self) -> dict[str, bytes]:
        labels = [json.dumps({"class": int(label)}).encode() for label in LABELS_B]
        return {
            f"{row}.{ending}": data
            for row in range(7)
            for ending, data in (("txt", TEXTS[row].encode()), ("json", labels[row]))
        }

    def named(self) -> dict[str, Any]:
        return {"input": ["txt"], "label": "json", "label_key": "class"}

    def expected_BX(self) -> NDArray[Any]:
        return np.array(TEXTS, TEXT)

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B


def test_ids_are_keys_and_do_not_depend_on_shards(tmp_path: Path) -> None:
    keys = [f"deep/folder.d/{row:04d}" for row in range(7)]
    assert TestImages().options(tmp_path).open().sample_ids(0, 7) == keys
    assert opened(write(tmp_path / "one" / "all.tar", images(range(7)))).sample_ids(0, 7) == keys


def test_labels_may_be_names_numbers_or_absent(tmp_path: Path) -> None:
    members = {"a.txt": b"", "a.json": b'{"label": "dog"}', "b.txt": b"", "b.json": b'{"label": null}'}
    members |= {"c.txt": b"", "d.txt": b"", "d.json": b'{"label": 0}', "e.txt": b"", "e.json": b" cat "}
    source = opened(write(tmp_path / "t.tar", members), input="txt", label="json", label_names=["cat", "dog"])
    labels_B = source.labels(0, 5)
    assert labels_B is not None and labels_B.tolist() == [1, -1, -1, 0, 0]


@pytest.mark.parametrize(
    "label", [b"dog", b"1.5", b'{"label": 1.0}', b'{"label": [1]}', b'{"label": true}', b"{", b"\xff"]
)
def test_a_label_that_is_none_is_named_with_its_shard_and_sample(tmp_path: Path, label: bytes) -> None:
    path = write(tmp_path / "t.tar", {"a.txt": b"", "a.cls": label})
    with pytest.raises(TransferSetError, match=r"t\.tar: sample 'a': its cls is no label: "):
        opened(path, input="txt", label="cls")


def test_inputs_that_are_missing_or_damaged_are_quarantined_and_keep_their_place(tmp_path: Path) -> None:
    whole = png(PIXELS_BHWC[0])
    members = {
        "a.png": whole,
        "b.cls": b"1",
        "c.png": whole[:50],
        "d.jpg": b"no image",
        "e.png": png(PIXELS_BHWC[1, :2]),
    }
    table = index_rows(opened(write(tmp_path / "t.tar", members)), num_classes=2, max_quarantined=1)
    reasons = dict(zip(table["sample_id"].to_pylist(), table["quarantine"].to_pylist(), strict=True))
    assert reasons["a"] is None
    assert reasons["b"] == "no member jpg or jpeg or png or webp"
    assert reasons["c"].startswith("cannot be decoded: ") and reasons["d"].startswith("cannot be decoded: ")
    assert reasons["e"].startswith("shape [2, 5, 3], expected [4, 5, 3]; set image.height")


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    members = {
        "a.npy": npy(np.zeros(2)),
        "b.npy": stream.getvalue(),
        "c.npy": npy(np.zeros(2, np.int8)),
        "d.npy": b"",
    }
    batch = opened(write(tmp_path / "t.tar", members), input="npy").read(np.arange(4))
    assert "allow_pickle=False" in batch.problems[1]
    assert batch.problems[2] == "numbers of type int8, expected float64"
    assert batch.problems[3].startswith("not a .npy array of numbers") and 0 not in batch.problems


def test_shards_are_read_from_any_filesystem_by_ranges() -> None:
    memory = fsspec.filesystem("memory")
    for number, rows in enumerate((range(3), range(3, 7))):
        memory.pipe(f"/wds/{number}.tar", tar(images(rows)))
    source = opened("memory://wds", label="cls", index="memory://wds/index.parquet")
    np.testing.assert_array_equal(source.read(np.array([6, 0, 5])).inputs_B, PIXELS_BHWC[[6, 0, 5]])
    assert memory.exists("/wds/index.parquet") and source.unchanged()
    memory.rm("/wds", recursive=True)


def test_members_are_looked_up_once_and_anew_when_a_shard_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    scan = tar_index.scan

    def spy(shards: Any, file: int, wanted: Any) -> Any:
        looked.append(file)
        return scan(shards, file, wanted)

    monkeypatch.setattr(tar_index, "scan", spy)
    options = TestImages().options(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(options.open().read(np.arange(7)).inputs_B, PIXELS_BHWC)
    assert looked == [0, 1]
    for other in ({"input": ("png",)}, {"label": None}):
        options.model_copy(update=other).open()
    assert looked == [0, 1] * 3
    TestImages().change(tmp_path)
    assert len(options.open()) == 8 and looked == [0, 1] * 4


def test_an_index_that_is_damaged_or_of_other_shards_is_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "kept" / "index.parquet"
    options = TestImages().options(tmp_path).model_copy(update={"index": str(place)})
    expected = list(options.open().sample_ids(0, 7))
    whole = place.read_bytes()
    opened(write(tmp_path / "other.tar", {"z.txt": b""}), input="txt", index=str(place))
    for content in (place.read_bytes(), whole[:-7], b"", bytes(100)):
        place.write_bytes(content)
        assert list(options.open().sample_ids(0, 7)) == expected
        assert place.read_bytes() == whole
    assert [path.name for path in place.parent.iterdir()] == ["index.parquet"]


def test_where_the_users_cache_cannot_be_written_the_index_is_made_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    options = TestImages().options(tmp_path)
    assert len(options.open()) == 7 and "every process makes its own" in caplog.text
    with pytest.raises(TransferSetError, match="index"):
        options.model_copy(update={"index": str(tmp_path / "file" / "index")}).open()


def cut(data: bytes, where: str) -> bytes:
    ends = {"header": 512 * 20 + 100, "member": 512 * 20 - 100, "between": data.rindex(b"README")}
    return data[: ends[where]]


@pytest.mark.parametrize("where", ["header", "member", "between"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_truncated_shard_is_refused_wherever_it_is_cut(tmp_path: Path, where: str, pack: Any) -> None:
    path = write(tmp_path / "s.tar", images(range(7)))
    path.write_bytes(pack(cut(path.read_bytes(), where)))
    with pytest.raises(TransferSetError, match=r"s\.tar: .*is it truncated, or no tar archive"):
        opened(path)


def test_a_shard_with_a_damaged_header_or_of_another_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", images(range(7)))
    whole = path.read_bytes()
    at = whole.index(b"deep/folder.d/0003.json")
    path.write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    with pytest.raises(TransferSetError, match=rf"no end of archive at byte {at}, where its members end"):
        opened(path)
    for data in (b"", b"PK\x03\x04" + bytes(2000), gzip.compress(whole)[:-20]):
        path.write_bytes(data)
        with pytest.raises(TransferSetError, match=r"s\.tar: "):
            opened(path)
    with pytest.raises(TransferSetError, match=r"nowhere\.tar: no such file"):
        opened(tmp_path / "nowhere.tar")


def test_a_shard_that_shrinks_after_it_was_indexed_is_an_error_and_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", images(range(7)))
    source = opened(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(TransferSetError, match=r"s\.tar: ends before byte \d+; it has changed"):
        source.read(np.arange(7))


def test_keys_that_repeat_over_shards_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"1.txt": b"x"})
    write(tmp_path / "b.tar", {"1.txt": b"y", "2.txt": b"z"})
    with pytest.raises(TransferSetError, match="1 sample ids repeat: '1' at 0, 1"):
        index_rows(opened(tmp_path, input="txt"), num_classes=2, max_quarantined=0)


def test_samples_with_two_inputs_or_one_member_twice_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", {"1.png": b"", "1.jpg": b""})
    with pytest.raises(TransferSetError, match="sample '1' has 2 inputs"):
        opened(path)
    path = write(tmp_path / "s.tar", {"1.png": b"", "1.PNG": b""})
    with pytest.raises(TransferSetError, match="sample '1' has two members 'png'"):
        opened(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "bin"}, "input bin: expected endings of images, npy or txt"),
        ({"input": ["png", "npy"]}, "all of one of these, or others with dtype and shape"),
        ({"input": "npy", "dtype": "int8", "shape": [1]}, "input npy: expected"),
        ({"input": "bin", "dtype": "int8"}, "dtype and shape belong together"),
        ({"input": "bin", "dtype": "object", "shape": [1]}, "dtype"),
        ({"input": "bin", "dtype": "int8", "shape": [0]}, "sizes of 1 and more"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WebDatasetOptions(path="x.tar", **options)
