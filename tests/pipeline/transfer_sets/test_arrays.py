from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.transfer_sets.contract import TransferSetContract

from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.storage_schemas.errors import TransferSetError

INPUTS_BTF = (np.arange(6 * 4 * 3) / 7).astype(np.float32).reshape(6, 4, 3)
LABELS_B = np.array([0, -1, 2, 1, -1, 0])
IDS = ["a", "b", "ccc", "é", "e-5", "f/6"]


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class TestNpy(TransferSetContract):
    def options(self, folder: Path) -> ArraysOptions:
        np.save(folder / "x.npy", INPUTS_BTF)
        np.save(folder / "y.npy", LABELS_B.astype(np.int8))
        np.save(folder / "ids.npy", IDS)
        return ArraysOptions(
            inputs=str(folder / "x.npy"), labels=str(folder / "y.npy"), ids=str(folder / "ids.npy")
        )

    def expected_BX(self) -> NDArray[Any]:
        return INPUTS_BTF

    def expected_labels_B(self) -> NDArray[np.int64] | None:
        return LABELS_B

    def change(self, folder: Path) -> None:
        np.save(folder / "y.npy", np.zeros(6, np.int16))


class TestNpz(TestNpy):
    def options(self, folder: Path) -> ArraysOptions:
        path = str(folder / "all.npz")
        np.savez_compressed(path, inputs=INPUTS_BTF, y=LABELS_B, ids=np.array(IDS))
        return ArraysOptions(inputs=path, labels=path, ids=path, labels_key="y")

    def change(self, folder: Path) -> None:
        np.savez(folder / "all.npz", inputs=INPUTS_BTF + 1, y=LABELS_B, ids=np.array(IDS))


class TestUnlabelledFortranBigEndianNpy(TestNpy):
    def options(self, folder: Path) -> ArraysOptions:
        np.save(folder / "x.npy", np.asfortranarray(INPUTS_BTF.astype(">f4")))
        return ArraysOptions(inputs=str(folder / "x.npy"))

    def expected_labels_B(self) -> None:
        return None

    def change(self, folder: Path) -> None:
        np.save(folder / "x.npy", INPUTS_BTF[:5])


def test_ids_are_given_or_made_of_the_files_name(tmp_path: Path) -> None:
    options = TestNpy().options(tmp_path)
    assert options.open().sample_ids(2, 5) == ["ccc", "é", "e-5"]
    assert options.model_copy(update={"ids": None}).open().sample_ids(2, 3) == ["x-00000002"]
    np.save(tmp_path / "ids.npy", np.arange(10, 16))
    assert options.open().sample_ids(0, 2) == ["10", "11"]
    prefixed = ArraysOptions(inputs=options.inputs, id_prefix="mine")
    assert prefixed.open().sample_ids(5, 6) == ["mine-00000005"]


def test_a_local_npy_is_mapped_and_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.npy"
    header = npy(np.zeros((0, 1024), np.uint8)).replace(b"(0, 1024), }" + b" " * 9, b"(67108864, 1024), }  ")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + (1 << 36))  # 64 GiB of holes
    assert ArraysOptions(inputs=str(path)).open().read(np.array([1 << 25])).inputs_B.sum() == 0


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_files_are_read_from_any_filesystem(name: str) -> None:
    stream = io.BytesIO()
    np.savez(stream, inputs=INPUTS_BTF)
    data = {"x.npy": npy(INPUTS_BTF), "x.npz": stream.getvalue()}[name]
    fsspec.filesystem("memory").pipe(f"/arrays/{name}", data)
    source = ArraysOptions(inputs=f"memory://arrays/{name}").open()
    np.testing.assert_array_equal(source.read(np.array([5, 0])).inputs_B, INPUTS_BTF[[5, 0]])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_row_with_nan_or_infinity_is_unreadable_and_blank_and_others_are_not(
    tmp_path: Path, dtype: str
) -> None:
    inputs_BF = np.ones((5, 3), dtype)
    inputs_BF[1, 2], inputs_BF[3, 0], inputs_BF[4, 1] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "x.npy", inputs_BF)
    read = ArraysOptions(inputs=str(tmp_path / "x.npy")).open().read(np.array([4, 0, 1, 2]))
    assert read.problems == {0: "input holds NaN or infinity", 2: "input holds NaN or infinity"}
    assert read.inputs_B.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("was unpickled",)


@pytest.mark.parametrize("role", ["inputs", "labels", "ids"])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_array_of_objects_is_refused_and_never_unpickled(tmp_path: Path, role: str, zipped: bool) -> None:
    np.save(tmp_path / "x.npy", INPUTS_BTF)
    objects = np.empty(6, object)
    objects[:] = Bomb()
    np.save(tmp_path / "bomb.npy", objects, allow_pickle=True)
    bomb = tmp_path / "bomb.npy"
    if zipped:
        bomb = tmp_path / "bomb.npz"
        with zipfile.ZipFile(bomb, "w") as archive:
            archive.write(tmp_path / "bomb.npy", f"{role}.npy")
    with pytest.raises(
        TransferSetError, match=r"bomb.*: holds Python objects, which would have to be unpickled"
    ):
        ArraysOptions.model_validate({"inputs": str(tmp_path / "x.npy"), role: str(bomb)}).open()


def refusal(path: Path, data: bytes) -> str:
    """The message with which inputs of this content are refused, at the latest when they are read."""
    path.write_bytes(data)
    with pytest.raises(TransferSetError) as error:
        ArraysOptions(inputs=str(path)).open().read(np.array([0]))
    return str(error.value)


def test_what_is_no_numpy_file_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\x89PNG....", pickle.dumps([1]), npy(INPUTS_BTF)[:30]):
        assert "x.npy: not a .npy array: " in refusal(tmp_path / "x.npy", data)
    assert "x.npy: truncated or damaged: " in refusal(tmp_path / "x.npy", b"PK\x03\x04 no zip")
    assert ".npy version (9, 0), expected (1, 0)" in refusal(
        tmp_path / "x.npy", b"\x93NUMPY\x09\x00" + bytes(99)
    )
    with pytest.raises(TransferSetError, match=r"none\.npy: no such file"):
        ArraysOptions(inputs=str(tmp_path / "none.npy")).open()


def test_a_file_that_is_shorter_or_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    whole = npy(INPUTS_BTF)
    path = tmp_path / "x.npy"
    assert refusal(path, whole[:-4]).startswith(
        f"{path}: truncated: 284 bytes of elements, its header promises 288"
    )
    assert "bytes left over after its last element" in refusal(path, whole + b"!")
    shrunk = ArraysOptions(inputs=str(path))
    path.write_bytes(whole)
    source = shrunk.open()
    path.write_bytes(whole[:-4])
    with pytest.raises(TransferSetError, match="truncated"):
        source.read(np.array([0]))


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, inputs=INPUTS_BTF)
    whole = stream.getvalue()
    assert "truncated or damaged" in refusal(tmp_path / "x.npz", whole[:-30])
    at = whole.index(INPUTS_BTF.tobytes()) + 40
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    assert "x.npz: truncated or damaged: Bad CRC-32 for file 'inputs.npy'" in refusal(
        tmp_path / "x.npz", flipped
    )


def test_a_key_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=INPUTS_BTF, y=LABELS_B)
    with pytest.raises(TransferSetError, match=r"x\.npz: no array 'inputs'; it holds images, y; set the key"):
        ArraysOptions(inputs=str(tmp_path / "x.npz")).open()


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (np.zeros(5), r"inputs of shape \[5\], expected \[rows, \.\.\.\]"),
        (np.zeros(()), r"inputs of shape \[\]"),
        (np.zeros((5, 0)), "at least one number a row"),
        (np.zeros((5, 2), complex), "inputs of type complex128, expected integers, booleans or floats"),
        (np.array([["a"]]), "inputs of type <U1"),
        (np.zeros((5, 2), [("a", "f4")]), r"inputs of type \[\('a'"),
    ],
)
def test_inputs_are_rows_of_numbers(tmp_path: Path, inputs: NDArray[Any], told: str) -> None:
    np.save(tmp_path / "x.npy", inputs)
    with pytest.raises(TransferSetError, match=rf"x\.npy: {told}|x\.npy: .*{told}"):
        ArraysOptions(inputs=str(tmp_path / "x.npy")).open()


@pytest.mark.parametrize(
    ("role", "array", "told"),
    [
        ("labels", np.zeros(5, int), "5 labels for 6 inputs, expected one each"),
        ("labels", np.zeros(6), r"labels of type float64 and shape \[6\], expected integers \[rows\]"),
        ("labels", np.eye(6, dtype=int), r"labels of type int64 and shape \[6, 6\]"),
        ("ids", np.array(["a"] * 5), r"ids of type <U1 and shape \[5\], expected strings or integers \[6\]"),
        ("ids", np.zeros(6), "ids of type float64"),
    ],
)
def test_labels_and_ids_are_one_a_row(tmp_path: Path, role: str, array: NDArray[Any], told: str) -> None:
    np.save(tmp_path / "x.npy", INPUTS_BTF)
    np.save(tmp_path / "other.npy", array)
    options = {"inputs": str(tmp_path / "x.npy"), role: str(tmp_path / "other.npy")}
    with pytest.raises(TransferSetError, match=rf"other\.npy: {told}"):
        ArraysOptions.model_validate(options).open()
