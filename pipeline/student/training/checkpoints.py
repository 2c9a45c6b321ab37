"""A training as it stood after a step: one safetensors file, replaced in one step. No pickle.

One file, because parameters, optimiser, position and random state must never come from different moments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from softcask.pipeline.student.options import Dtype
from softcask.storage_schemas.errors import CheckpointError, StudentError
from softcask.storage_schemas.fingerprint import differences

_FORMAT = 2
_READ = (1, _FORMAT)
"""The first knew ends of epochs alone, and no losses of steps."""
_MODEL = "model/"
_OPTIMISER = "optimiser/"
_RANDOM = "random/"
_LOSSES = "losses"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What a checkpoint knows besides tensors.

    Attributes:
        identity: What the training is: options and data; another identity may not go on from here.
        epoch: Epochs done.
        step: Steps done, over all epochs; None where a checkpoint of format 1 does not say: those of `epoch`.
        position: Where the loader stands, as its `state_dict` says; None: at the begin of `epoch`.
        dtype: What forward passes compute with; kept, so that `auto` chooses once.
        loss: Mean loss of the last epoch.
        errors_by_epoch: Test errors after each epoch; None where they were not counted.
        seconds: Wall time so far.
        cpu_seconds: CPU time so far.
    """

    identity: dict[str, Any]
    dtype: Dtype
    epoch: int = 0
    step: int | None = 0
    position: dict[str, Any] | None = None
    loss: float = 0.0
    errors_by_epoch: tuple[int | None, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a checkpoint keeps beside model and optimiser.

    Attributes:
        losses: Loss of each step so far, float64.
        random: Torch's random states by device, as `random_state` gives them.
    """

    losses: torch.Tensor
    random: Mapping[str, torch.Tensor]


def save_checkpoint(
    path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer, state: TrainingState, kept: Kept
) -> None:
    """Write a checkpoint over the last one; a reader sees either the old or the new.

    Raises:
        StudentError: The filesystem refused, or the model has state that is no tensor.
    """
    tensors = {_MODEL + name: tensor for name, tensor in _model_tensors(model).items()}
    tensors |= {_RANDOM + device: found for device, found in kept.random.items()}
    tensors[_LOSSES] = kept.losses
    plain: dict[str, Any] = {}
    for index, entries in optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_OPTIMISER}{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = value
    document = {"format": _FORMAT, "state": asdict(state), "optimiser": plain}
    save_tensors(path, tensors, {"softcask": json.dumps(document)})


def save_model(path: Path, model: torch.nn.Module) -> None:
    """Write the model's parameters and buffers alone, for whoever uses it.

    Raises:
        StudentError: The filesystem refused, or the model has state that is no tensor.
    """
    save_tensors(path, _model_tensors(model))


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file under its final name only when it is whole.

    Raises:
        StudentError: The filesystem refused.
    """
    # safetensors takes neither shared nor strided memory; tied weights are kept once for each name.
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.touch()
        mode = aside.stat().st_mode
        save_file(own, aside, metadata)  # makes a file that its owner alone may read
        aside.chmod(mode)
        _replace(aside, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StudentError(f"cannot write {path}: {error}; free space or choose another output") from error


def save_text(path: Path, text: str) -> None:
    """Write a text file under its final name only when it is whole.

    Raises:
        StudentError: The filesystem refused.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.write_text(text, "utf-8")
        _replace(aside, path)
    except OSError as error:
        raise StudentError(f"cannot write {path}: {error}; free space or choose another output") from error


def read_state(path: Path) -> TrainingState | None:
    """What a checkpoint knows besides tensors; None where there is no checkpoint.

    Raises:
        CheckpointError: The file is damaged or of a newer softcask.
    """
    return _state(_document(path), path) if path.is_file() else None


def restore(path: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Kept:
    """Put a checkpoint's tensors into a model and an optimiser built from the same configuration.

    Returns:
        What it keeps beside them.

    Raises:
        CheckpointError: The file is damaged, or its tensors do not fit this model: its factory has changed.
    """
    document = _document(path)
    entries: dict[int, dict[str, Any]] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        for key, value in {**_below(_OPTIMISER, tensors), **document["optimiser"]}.items():
            index, _, name = key.partition("/")
            entries.setdefault(int(index), {})[name] = value
        model.load_state_dict(_below(_MODEL, tensors), strict=True)
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": entries, "param_groups": groups})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not fit the model that its factory builds now: {error}. Put the factory back, "
            "choose another output, or train anew with --restart"
        ) from error
    losses = tensors.get(_LOSSES, torch.empty(0, dtype=torch.float64))
    return Kept(losses=losses, random=_below(_RANDOM, tensors))


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def check_identity(path: Path, state: TrainingState, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        CheckpointError: They differ; the message lists every field.
    """
    if lines := differences(identity, state.identity):
        listed = "".join(f"\n  {line}" for line in lines)
        raise CheckpointError(
            f"{path} ({state.epoch} epochs done) was made by another training:{listed}\n"
            "Put these back, choose another output, or train anew with --restart, which discards it"
        )


def _model_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise StudentError(
            f"the model keeps {odd[0]!r} as a {type(state[odd[0]]).__name__}; a checkpoint holds tensors "
            "alone: make it a buffer"
        )
    return state


def _replace(aside: Path, path: Path) -> None:
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def _document(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            document = json.loads((file.metadata() or {})["softcask"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of softcask or is damaged ({error!r}); move it away, or train anew "
            "with --restart"
        ) from error
    if document.get("format") not in _READ:
        raise CheckpointError(
            f"{path} has checkpoint format {document.get('format')}, this softcask reads {_FORMAT}; upgrade "
            "softcask, or train anew with --restart"
        )
    return dict(document)


def _state(document: dict[str, Any], path: Path) -> TrainingState:
    try:
        fields = {"step": None, **document["state"]}
        return TrainingState(**{**fields, "errors_by_epoch": tuple(fields["errors_by_epoch"])})
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} lacks what a checkpoint must say: {error}; train anew with --restart"
        ) from error
