"""A model's numbers: read from a file without running anything in it, put into a module, and digested.

Teachers and students share it. Torch is imported only where tensors are made.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import fsspec

from softcask.storage_schemas.errors import WeightsError

if TYPE_CHECKING:
    import torch

StateDict = Mapping[str, "torch.Tensor"]
_PICKLED = (".pt", ".pth", ".bin")
_WRAPPERS = ("state_dict", "model")
_CHUNK = 1 << 20
_MAX_KEYS = 5


def file_digest(path: str) -> str:
    """`sha256:...` of a file's content, read in pieces.

    Args:
        path: A local path or an fsspec URL.

    Raises:
        WeightsError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with _open(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def local_size(*paths: str) -> int | None:
    """Bytes of files, as far as they are on this machine; None where none is."""
    sizes = [Path(path).stat().st_size for path in paths if Path(path).is_file()]
    return sum(sizes) if sizes else None


def load_state(path: str) -> StateDict:
    """The tensors of a weights file, on the host.

    Args:
        path: `.safetensors`, or `.pt`, `.pth`, `.bin` as `torch.save` writes a state dict, plain or under the
            key `state_dict` or `model`; a local path or an fsspec URL.

    Raises:
        WeightsError: The file is missing, of another kind, or holds more than tensors.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".safetensors":
        return _load_safetensors(path)
    if suffix in _PICKLED:
        return _load_pickled(path)
    raise WeightsError(
        f"weights {path}: expected a name in .safetensors, {', '.join(_PICKLED)}, found {suffix!r}"
    )


def load_into(module: torch.nn.Module, path: str) -> None:
    """Copy a file's tensors into a module that has exactly those names and shapes.

    Raises:
        WeightsError: See `load_state`; or names or shapes differ, which are listed.
    """
    state = load_state(path)
    own = module.state_dict()
    problems = [
        *_listed("missing in the file", sorted(own.keys() - state.keys())),
        *_listed("unknown to the model", sorted(state.keys() - own.keys())),
        *_listed("of another shape", _misshapen(own, state)),
    ]
    if problems:
        raise WeightsError(f"weights {path} do not fit {type(module).__name__}: " + "; ".join(problems))
    module.load_state_dict(dict(state), strict=True)


def state_digest(module: torch.nn.Module) -> str:
    """`sha256:...` over the names, dtypes, shapes and bytes of all parameters and buffers, sorted by name."""
    tensors: dict[str, torch.Tensor] = {}
    tensors.update(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(_bytes(tensor))
    return f"sha256:{digest.hexdigest()}"


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    # numpy has no bfloat16, and a tensor without dimensions cannot be viewed as bytes.
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _load_safetensors(path: str) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if "://" not in path:
            return load_file(_existing(path))
        with _open(path) as file:
            return load(file.read())
    except SafetensorError as error:
        raise WeightsError(f"weights {path} are not a whole safetensors file: {error}") from error


def _load_pickled(path: str) -> StateDict:
    import torch

    with _open(path) as file:
        content = io.BytesIO(file.read())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever rubbish makes the unpickler stumble over
        raise WeightsError(
            f"weights {path} cannot be read as tensors alone, and nothing else is run from a file. "
            "Save `module.state_dict()` with safetensors.torch.save_file "
            f"({type(error).__name__}: {str(error).partition('.')[0]})"
        ) from error
    return _unwrapped(state, path)


def _unwrapped(state: Any, path: str) -> StateDict:
    import torch

    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise WeightsError(f"weights {path}: expected a state dict, found a {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"weights {path}: expected a tensor under {name!r}, found a {type(value).__name__}. "
                f"A state dict stands at the top of the file or under {' or '.join(map(repr, _WRAPPERS))}"
            )
    return state


def _misshapen(own: StateDict, state: StateDict) -> list[str]:
    return [
        f"{name} (file {list(state[name].shape)}, model {list(own[name].shape)})"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]


def _listed(label: str, names: list[str]) -> Iterable[str]:
    if names:
        more = f" and {len(names) - _MAX_KEYS} more" if len(names) > _MAX_KEYS else ""
        yield f"{len(names)} {label}: {', '.join(names[:_MAX_KEYS])}{more}"


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise WeightsError(f"weights {path}: there is no such file")
    return Path(path)


def _open(path: str) -> BinaryIO:
    try:
        return cast(BinaryIO, fsspec.open(path, "rb").open())
    except FileNotFoundError as error:
        raise WeightsError(f"weights {path}: there is no such file") from error
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(f"weights {path} cannot be opened: {error}") from error
