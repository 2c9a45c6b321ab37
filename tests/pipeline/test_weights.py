from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save, save_file

from softcask.pipeline.weights import file_digest, load_into, load_state, state_digest
from softcask.storage_schemas.errors import WeightsError

STATE = {"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "bias": torch.tensor([7.0, -1.0])}


@pytest.fixture
def linear() -> torch.nn.Linear:
    return torch.nn.Linear(3, 2)


def write(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def test_safetensors_are_loaded(tmp_path: Path, linear: torch.nn.Linear) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    load_into(linear, str(tmp_path / "w.safetensors"))
    assert torch.equal(linear.weight, STATE["weight"]) and torch.equal(linear.bias, STATE["bias"])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".PT"])
@pytest.mark.parametrize("wrap", [(), ("state_dict",), ("model",)])
def test_state_dicts_that_torch_saved_are_loaded_plain_or_wrapped(
    suffix: str, wrap: tuple[str, ...], tmp_path: Path, linear: torch.nn.Linear
) -> None:
    content: Any = STATE
    for key in wrap:
        content = {key: content, "epoch": 3}
    load_into(linear, write(tmp_path / f"w{suffix}", content))
    assert torch.equal(linear.weight, STATE["weight"])


def test_weights_are_loaded_and_hashed_from_any_filesystem(linear: torch.nn.Linear, tmp_path: Path) -> None:
    content = save(STATE)
    for url in ("memory://softcask-weights/w.safetensors", f"file://{tmp_path}/w.safetensors"):
        with fsspec.open(url, "wb") as file:
            file.write(content)
        torch.nn.init.zeros_(linear.weight)
        load_into(linear, url)
        assert torch.equal(linear.weight, STATE["weight"])
        assert file_digest(url) == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_large_files_are_hashed_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 3 + b"end"
    (tmp_path / "w.bin").write_bytes(content)
    assert file_digest(str(tmp_path / "w.bin")) == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_half_precision_weights_become_the_modules_dtype(tmp_path: Path, linear: torch.nn.Linear) -> None:
    half = {name: tensor.to(torch.bfloat16) for name, tensor in STATE.items()}
    load_into(linear, write(tmp_path / "w.pt", half))
    assert linear.weight.dtype == torch.float32 and torch.equal(linear.weight, STATE["weight"])


def test_names_and_shapes_that_differ_are_all_listed_and_nothing_is_loaded(
    tmp_path: Path, linear: torch.nn.Linear
) -> None:
    before = state_digest(linear)
    wrong = {"weight": torch.zeros(3, 2), **{f"extra{index}": torch.zeros(1) for index in range(7)}}
    path = write(tmp_path / "w.pt", wrong)
    with pytest.raises(WeightsError) as caught:
        load_into(linear, path)
    assert str(caught.value) == (
        f"weights {path} do not fit Linear: 1 missing in the file: bias; 7 unknown to the model: extra0, "
        "extra1, extra2, extra3, extra4 and 2 more; 1 of another shape: weight (file [3, 2], model [2, 3])"
    )
    assert state_digest(linear) == before


@pytest.mark.parametrize("path", ["no/such.safetensors", "no/such.pt", "memory://no/such.safetensors"])
def test_a_missing_file_is_named(path: str) -> None:
    for ask in (load_state, file_digest):
        with pytest.raises(WeightsError) as caught:
            ask(path)
        assert f"weights {path}: there is no such file" in str(caught.value)


def test_a_protocol_that_is_not_known_is_named() -> None:
    with pytest.raises(WeightsError, match=r"weights nowhere://w\.pt cannot be opened: Protocol not known"):
        load_state("nowhere://w.pt")


def test_a_folder_is_not_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be opened: .*directory"):
        file_digest(str(tmp_path))


def test_a_name_of_another_kind_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"in \.safetensors, \.pt, \.pth, \.bin, found '\.ckpt'"):
        load_state("model.ckpt")


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_truncated_safetensors_file_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(STATE)[:cut])
    with pytest.raises(WeightsError, match="are not a whole safetensors file: "):
        load_state(str(path))


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 rubbish"])
def test_a_broken_pickle_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        load_state(str(path))


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_weights_file_is_not_run(legacy: bool, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "w.pt"
    torch.save({"weight": Evil(str(touched))}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"nothing else is run from a file\. Save .* with safetensors"):
        load_state(str(path))
    assert not touched.exists()


def test_more_than_tensors_is_refused_with_the_first_key(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"expected a tensor under 'epoch', found a int.*'state_dict' or 'model'"
    ):
        load_state(write(tmp_path / "w.pt", {"weight": STATE["weight"], "epoch": 3}))
    with pytest.raises(WeightsError, match="expected a state dict, found a list"):
        load_state(write(tmp_path / "w.pt", [1]))


def test_the_state_digest_is_that_of_sorted_names_dtypes_shapes_and_bytes(linear: torch.nn.Linear) -> None:
    linear.load_state_dict(STATE)
    expected = hashlib.sha256(
        json.dumps(["bias", "torch.float32", [2]]).encode()
        + b"\n"
        + struct.pack("<2f", 7, -1)
        + json.dumps(["weight", "torch.float32", [2, 3]]).encode()
        + b"\n"
        + struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    )
    assert state_digest(linear) == f"sha256:{expected.hexdigest()}"


def holding(**tensors: torch.Tensor) -> torch.nn.Module:
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor, persistent=False)
    return module


def test_the_state_digest_sees_name_dtype_shape_and_every_bit() -> None:
    ones = torch.ones(4)
    modules = [
        holding(a=ones),
        holding(b=ones),
        holding(a=ones.double()),
        holding(a=ones.reshape(2, 2)),
        holding(a=ones.to(torch.bfloat16)),
        holding(a=torch.tensor([1, 1, 1, 1 + 2**-23])),
        holding(a=torch.tensor(1.0)),
        holding(a=torch.zeros(0)),
        holding(a=torch.tensor(0.0)),
        holding(a=torch.tensor(-0.0)),
        holding(),
    ]
    assert len({state_digest(module) for module in modules}) == len(modules)


def test_the_state_digest_does_not_see_order_layout_or_gradients() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    one = holding(a=matrix, b=torch.ones(1))
    other = holding(b=torch.ones(1), a=matrix.T.contiguous().T)
    assert state_digest(one) == state_digest(other)
    frozen, trained = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    frozen.load_state_dict(trained.state_dict())
    assert state_digest(frozen.requires_grad_(False)) == state_digest(trained)
