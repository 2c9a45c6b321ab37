from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets.idx import IdxOptions, default_prefix
from softcask.storage_schemas.errors import TransferSetError

IMAGES_BHW = np.arange(7 * 3 * 2, dtype=np.uint8).reshape(7, 3, 2)
LABELS_B = np.array([3, 1, 4, 1, 5, 9, 2])


def idx(code: int, shape: tuple[int, ...], elements: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + elements


IMAGES = idx(0x08, (7, 3, 2), bytes(range(42)))
LABELS = idx(0x08, (7,), bytes(LABELS_B.tolist()))


class TestPlainIdx(TransferSetContract):
    pack = staticmethod(bytes)
    ending = ""

    def options(self, folder: Path) -> IdxOptions:
        images, labels = (folder / f"{name}{self.ending}" for name in ("few-images-idx3-ubyte", "few-labels"))
        images.write_bytes(self.pack(IMAGES))
        labels.write_bytes(self.pack(LABELS))
        return IdxOptions(images=str(images), labels=str(labels))

    def expected_BX(self) -> NDArray[Any]:
        return IMAGES_BHW

    def expected_labels_B(self) -> NDArray[np.int64]:
        return LABELS_B

    def change(self, folder: Path) -> None:
        more = idx(0x08, (8,), bytes(8))
        (folder / f"few-labels{self.ending}").write_bytes(self.pack(more))
        more = idx(0x08, (8, 3, 2), bytes(48))
        (folder / f"few-images-idx3-ubyte{self.ending}").write_bytes(self.pack(more))


class TestGzippedIdx(TestPlainIdx):
    pack = staticmethod(gzip.compress)
    ending = ".gz"


@pytest.mark.parametrize(
    ("code", "packed", "dtype"),
    [
        (0x08, "2B", np.uint8),
        (0x09, "2b", np.int8),
        (0x0B, "2h", np.int16),
        (0x0C, "2i", np.int32),
        (0x0D, "2f", np.float32),
        (0x0E, "2d", np.float64),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_element_type_is_read_as_big_endian(
    tmp_path: Path, code: int, packed: str, dtype: type, pack: Any
) -> None:
    written = (7, 100) if packed in ("2B",) else (-7, 100)
    path = tmp_path / "x"
    path.write_bytes(pack(idx(code, (1, 2), struct.pack(f">{packed}", *written))))
    source = IdxOptions(images=str(path)).open()
    assert source.input_dtype == np.dtype(dtype) and source.input_dtype.isnative
    assert source.read(np.array([0])).inputs_B.tolist() == [list(written)]
    assert source.labels(0, 1) is None


def test_ids_start_with_the_images_name_without_what_only_names_the_format(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(IMAGES))
    assert IdxOptions(images=str(path)).open().sample_ids(5, 7) == [
        "train-images-00000005",
        "train-images-00000006",
    ]
    assert IdxOptions(images=str(path), id_prefix="a/b").open().sample_ids(0, 1) == ["a/b-00000000"]


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("/data/t10k-images.idx3-ubyte", "t10k-images"),
        ("s3://bucket/emnist-idx3.gz", "emnist"),
        ("https://host/digits.bin?signature=abc", "digits.bin"),
        ("simplecache::s3://bucket/idx3-ubyte", "idx3-ubyte"),
    ],
)
def test_the_prefix_is_worked_out_from_any_url(url: str, prefix: str) -> None:
    assert default_prefix(url) == prefix


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_are_read_from_any_filesystem(pack: Any) -> None:
    fsspec.filesystem("memory").pipe({"/idx/images": pack(IMAGES), "/idx/labels": pack(LABELS)})
    source = IdxOptions(images="memory://idx/images", labels="memory://idx/labels").open()
    np.testing.assert_array_equal(source.read(np.array([6, 2])).inputs_B, IMAGES_BHW[[6, 2]])
    assert source.describe()["files"]["images"]["bytes"] == len(pack(IMAGES))


def refusal(tmp_path: Path, images: bytes, labels: bytes | None = None) -> str:
    """The message with which files of this content are refused, at the latest when they are read."""
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels or b"")
    options = IdxOptions(
        images=str(tmp_path / "images"), labels=str(tmp_path / "labels") if labels is not None else None
    )
    with pytest.raises(TransferSetError) as error:
        source = options.open()
        source.labels(0, 1)
        source.read(np.array([0]))
    return str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferSetError, match=r"nowhere/images: no such file; check the path"):
        IdxOptions(images=str(tmp_path / "nowhere" / "images")).open()
    with pytest.raises(TransferSetError, match="found a folder, expected a file"):
        IdxOptions(images=str(tmp_path)).open()


@pytest.mark.parametrize(
    "url", ["nosuchprotocol://x/y", "memory://not/there", "file:///not/there", "memory://x?y::z://"]
)
def test_a_url_that_leads_nowhere_is_named(url: str) -> None:
    with pytest.raises(TransferSetError) as error:
        IdxOptions(images=url).open()
    assert str(error.value).startswith(f"{url}: ")


def test_other_formats_are_refused_with_what_they_start_with(tmp_path: Path) -> None:
    assert "not an IDX file: it starts with 89 50 4e 47" in refusal(tmp_path, b"\x89PNG....")
    assert "starts with 00 00 0a 03" in refusal(tmp_path, bytes([0, 0, 0x0A, 3]) + bytes(60))
    assert "starts with 00 00 08 00" in refusal(tmp_path, bytes([0, 0, 8, 0]) + bytes(60))
    assert "starts with nothing" in refusal(tmp_path, b"")
    assert "truncated within its header of 3 axes" in refusal(tmp_path, IMAGES[:10])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_with_too_few_bytes_is_truncated(tmp_path: Path, pack: Any) -> None:
    message = refusal(tmp_path, pack(IMAGES[:-5]))
    assert message.startswith(f"{tmp_path}/images: truncated: 37 bytes of elements, its header promises 42")
    assert "labels: truncated: 6 bytes" in refusal(tmp_path, IMAGES, pack(LABELS[:-1]))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_with_bytes_left_over_is_refused(tmp_path: Path, pack: Any) -> None:
    assert "images: bytes left over after its last element" in refusal(tmp_path, pack(IMAGES + b"!"))


def test_a_header_that_promises_more_than_memory_is_only_a_truncated_file(tmp_path: Path) -> None:
    huge = idx(0x08, (2**32 - 1, 2**32 - 1, 2**20), b"few")
    assert "truncated: 3 bytes" in refusal(tmp_path, huge)
    assert "truncated: 3 bytes" in refusal(tmp_path, gzip.compress(huge))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(IMAGES)
    assert "images: truncated or damaged: " in refusal(tmp_path, whole[:-12])
    assert "images: truncated or damaged: CRC check failed" in refusal(
        tmp_path, whole[:-8] + b"\0\0\0\0" + whole[-4:]
    )
    assert "images: truncated or damaged: " in refusal(tmp_path, whole + b"not gzip")


def test_labels_must_fit_the_images(tmp_path: Path) -> None:
    assert "labels: 6 labels for 7 inputs" in refusal(tmp_path, IMAGES, idx(0x08, (6,), bytes(6)))
    assert "labels: labels of type" in refusal(tmp_path, IMAGES, IMAGES)
    assert "are inputs and labels exchanged?" in refusal(tmp_path, LABELS, IMAGES)


def test_a_position_outside_the_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(IMAGES)
    source = IdxOptions(images=str(path)).open()
    for position in (-1, 7):
        with pytest.raises(TransferSetError, match="expected 0 to 6"):
            source.read(np.array([0, position]))


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "images"
    path.write_bytes(IMAGES)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fsspec, "open", refuse)
    with pytest.raises(TransferSetError, match=r"images: may not be read: .*check its permissions"):
        IdxOptions(images=str(path)).open()
