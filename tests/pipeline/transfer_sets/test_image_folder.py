from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets import image_folder
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.image_folder import ImageFolderOptions
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas.errors import QuarantineExceeded, TransferSetError

PIXELS_BHWC = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
PLACES = ("b/2.png", "b/10.PNG", "a/deep/9.png", "c/1.png", "a/1.png", "c/é.png")
IN_ORDER = [4, 2, 1, 0, 3, 5]  # by path, character by character, as sorted() has them


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def write(folder: Path, places: tuple[str, ...] = PLACES) -> Path:
    for place, pixels in zip(places, PIXELS_BHWC, strict=False):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(encoded(pixels))
    return folder


def opened(root: Path, **options: Any) -> TransferSet:
    return ImageFolderOptions(root=str(root), **options).open()


class TestClassFolders(TransferSetContract):
    def options(self, folder: Path) -> ImageFolderOptions:
        write(folder / "train")
        (folder / "train" / "b" / "notes.txt").write_text("no image")
        (folder / "train" / ".thumbnails").mkdir(exist_ok=True)
        (folder / "train" / ".thumbnails" / "0.png").write_bytes(b"")
        return ImageFolderOptions(root=str(folder / "train"))

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC[IN_ORDER]

    def expected_labels_B(self) -> NDArray[np.int64]:
        return np.array([0, 0, 1, 1, 2, 2])

    def change(self, folder: Path) -> None:
        (folder / "train" / "a" / "1.png").write_bytes(encoded(PIXELS_BHWC[0]))


class TestAFlatFolder(TransferSetContract):
    def options(self, folder: Path) -> ImageFolderOptions:
        return ImageFolderOptions(root=str(write(folder / "flat", tuple(f"{n}.png" for n in range(6)))))

    def expected_BX(self) -> NDArray[Any]:
        return PIXELS_BHWC

    def expected_labels_B(self) -> None:
        return None

    def change(self, folder: Path) -> None:
        (folder / "flat" / "2.png").unlink()


def test_ids_are_paths_within_the_folder(tmp_path: Path) -> None:
    assert opened(write(tmp_path)).sample_ids(0, 6) == [PLACES[n] for n in IN_ORDER]


def test_empty_folders_are_classes_and_images_beside_folders_have_no_label(tmp_path: Path) -> None:
    write(tmp_path, ("b/1.png", "0.png", "d/1.png"))
    (tmp_path / "a").mkdir()
    source = opened(tmp_path)
    assert list(source.sample_ids(0, 3)) == ["0.png", "b/1.png", "d/1.png"]
    assert source.labels(0, 3).tolist() == [-1, 1, 2]  # type: ignore[union-attr]
    assert opened(tmp_path, labels="none").labels(0, 3) is None


def test_class_names_give_folders_their_index(tmp_path: Path) -> None:
    write(tmp_path, ("b/1.png", "a/1.png"))
    source = opened(tmp_path, class_names=["z", "b", "a"])
    assert source.labels(0, 2).tolist() == [2, 1]  # type: ignore[union-attr]
    with pytest.raises(TransferSetError, match="folder 'b' is none of the 2 in class_names"):
        opened(tmp_path, class_names=["a", "c"])


def test_the_folder_may_lie_on_any_filesystem() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {f"/images/{place}": encoded(pixels) for place, pixels in zip(PLACES, PIXELS_BHWC, strict=True)}
    )
    source = ImageFolderOptions(root="memory://images").open()
    assert source.sample_ids(0, 6) == [PLACES[n] for n in IN_ORDER]
    np.testing.assert_array_equal(source.read(np.array([5, 0])).inputs_B, PIXELS_BHWC[[5, 4]])
    assert source.labels(0, 6).tolist() == [0, 0, 1, 1, 2, 2] and source.unchanged()  # type: ignore[union-attr]
    memory.pipe("/images/d/1.png", encoded(PIXELS_BHWC[0]))
    assert not source.unchanged()
    memory.rm("/images", recursive=True)


def test_images_that_cannot_be_read_are_quarantined_and_keep_their_place(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    (tmp_path / "b" / "2.png").write_bytes((tmp_path / "b" / "2.png").read_bytes()[:80])
    (tmp_path / "c" / "1.png").write_bytes(encoded(PIXELS_BHWC[0, :2]))
    (tmp_path / "c" / "0.png").symlink_to("nowhere.png")
    table = index_rows(opened(tmp_path), num_classes=3, max_quarantined=0.6)
    reasons = dict(zip(table["sample_id"].to_pylist(), table["quarantine"].to_pylist(), strict=True))
    assert list(reasons) == [
        "a/1.png",
        "a/deep/9.png",
        "b/10.PNG",
        "b/2.png",
        "c/0.png",
        "c/1.png",
        "c/é.png",
    ]
    assert [name for name, reason in reasons.items() if reason is None] == [
        "a/deep/9.png",
        "b/10.PNG",
        "c/é.png",
    ]
    assert "cannot identify image file" in reasons["a/1.png"]
    assert "truncated" in reasons["b/2.png"]
    assert reasons["c/0.png"] == "FileNotFoundError: No such file or directory"
    assert reasons["c/1.png"].startswith("shape [2, 5, 3], expected [4, 5, 3]; set image.height")
    with pytest.raises(QuarantineExceeded, match=r"4 of 7 rows \(57\.14%\) cannot be read: 'a/1\.png'"):
        index_rows(opened(tmp_path), num_classes=3, max_quarantined=0.5)


def test_links_are_followed_within_the_folder_and_not_out_of_it_unless_that_is_allowed(
    tmp_path: Path,
) -> None:
    root, secret = write(tmp_path / "root", ("a/1.png",)), tmp_path / "secret.png"
    secret.write_bytes(encoded(PIXELS_BHWC[1]))
    (root / "a" / "2.png").symlink_to("1.png")
    (root / "a" / "3.png").symlink_to(secret)
    batch = opened(root).read(np.arange(3))
    np.testing.assert_array_equal(batch.inputs_B[1], PIXELS_BHWC[0])
    assert not batch.inputs_B[2].any()
    assert batch.problems == {2: image_folder.OUTSIDE}
    np.testing.assert_array_equal(
        opened(root, follow_links=True).read(np.arange(3)).inputs_B[2], PIXELS_BHWC[1]
    )


def test_linked_folders_are_refused_unless_allowed_and_never_followed_round(tmp_path: Path) -> None:
    root = write(tmp_path / "root", ("a/1.png",))
    (root / "b").symlink_to(write(tmp_path / "other", ("2.png",)))
    with pytest.raises(TransferSetError, match="root/b: a link to a folder, which is not followed"):
        opened(root)
    assert opened(root, follow_links=True).sample_ids(0, 2) == ["a/1.png", "b/2.png"]
    (root / "a" / "round").symlink_to(root)
    with pytest.raises(TransferSetError, match="a/round: a link to a folder that is already part of"):
        opened(root, follow_links=True)


def test_a_folder_that_is_missing_empty_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferSetError, match="nowhere: no such file; check the path"):
        opened(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(TransferSetError, match=r"no image \(\.png, \.jpg.*\) in this folder"):
        opened(tmp_path)
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(TransferSetError, match="found a file, expected a folder"):
        opened(tmp_path / "a" / "1.png")
    with pytest.raises(TransferSetError, match="none of the first rows can be read"):
        opened(tmp_path)


def test_of_very_many_files_a_change_is_told_by_reading_and_not_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "_MOST_LOOKED_AT", 5)
    source = opened(write(tmp_path))
    assert not source.unchanged() and source.describe() == opened(tmp_path).describe()


def test_as_many_threads_as_asked_for_decode_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path)
    found = [opened(tmp_path, threads=threads).read(np.arange(6)).inputs_B for threads in (1, 3, 16)]
    for each in found:
        np.testing.assert_array_equal(each, PIXELS_BHWC[IN_ORDER])
