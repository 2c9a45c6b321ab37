"""From a student's file to what is trained: data joined, model built, both seen to fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softcask.pipeline.factories import add_to_path, call
from softcask.pipeline.preprocessing import PreprocessingOptions, to_tensor
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.student.loading.loader import StudentLoader, Temperature, loader
from softcask.pipeline.student.loading.parts import Part, part
from softcask.pipeline.student.training.bias_correction import HeldOut, open_held_out
from softcask.pipeline.student.training.evaluation import Evaluation
from softcask.pipeline.targets.soft_targets import SoftTargets
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.storage_schemas.errors import StudentError, TransferSetError
from softcask.storage_schemas.fingerprint import canonical, digest

if TYPE_CHECKING:
    from softcask.pipeline.student.config import StudentConfig

_NOT_IDENTITY: dict[str, Any] = {
    "store": True,  # stores and inputs may move: `data` and `teachers` say what is in them
    "allow_partial": True,
    "transfer_set": True,
    "evaluation": True,
    "match": True,
    "bias_correction": True,  # of what has been trained; `result.json` says which
    "output": True,
    "python_path": True,
    "training": {
        "device",
        "num_threads",
        "num_workers",
        "evaluate_every_epoch",
        "checkpoint_every_seconds",
        "checkpoint_every_steps",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentData:
    """What a student is trained and judged on.

    Attributes:
        store: Where they come from.
        rows: Its rows with their inputs.
        loader: Batches of them.
        targets: Where soft targets come from.
        evaluation: Labelled test rows, if there are any.
        evaluation_facts: What the test set says of itself.
        held_out: Rows to fit a bias on, if one is to be corrected.
        sample_B: Two rows, to try a model on.
    """

    store: Store
    rows: Part
    loader: StudentLoader
    targets: SoftTargets
    evaluation: Evaluation | None
    evaluation_facts: dict[str, Any] | None
    held_out: HeldOut | None
    sample_B: torch.Tensor


def open_data(config: StudentConfig) -> StudentData:
    """Open store and transfer sets, and join them; raises as `loader`, `Evaluation`, `open_held_out` do."""
    store = open_store(config.store, allow_partial=config.allow_partial)
    targets = config.targets.open(store)
    inputs = config.transfer_set.open()
    add_to_path(config.python_path)
    rows = part(
        targets,
        inputs=inputs,
        coverage=config.rows,
        match=config.match,
        select=config.select,
        views=config.targets.views,
        augmentation=config.views,
    )
    sample_B = _sample(rows, inputs)
    tests = config.evaluation.open() if config.evaluation is not None else None
    correction = config.bias_correction
    return StudentData(
        store=store,
        rows=rows,
        loader=loader(
            [rows],
            needs=config.loss.needs,
            temperature=_temperature(config, targets),
            batch_size=config.training.batch_size,
            seed=config.training.seed,
            rank=0,
            world_size=1,
            num_workers=config.training.num_workers,
        ),
        targets=targets,
        evaluation=_evaluation(tests, sample_B, len(store.class_names)) if tests is not None else None,
        evaluation_facts=canonical(tests.describe()) if tests is not None else None,
        held_out=open_held_out(correction, store.class_names, inputs, tests) if correction else None,
        sample_B=sample_B,
    )


def _temperature(config: StudentConfig, targets: SoftTargets) -> Temperature:
    """T as a loader takes it, once the teachers are known to be good for wherever it goes."""
    temperatures = config.targets.temperatures(config.training.epochs)
    if config.loss.needs in ("probabilities", "compressed"):
        for temperature in {min(temperatures), max(temperatures)}:
            targets.check_temperature(temperature)
    return temperatures[0] if len(set(temperatures)) == 1 else temperatures.__getitem__


def _sample(rows: Part, inputs: TransferSet) -> torch.Tensor:
    """Two rows as the first epoch has them."""
    if rows.views[0] == 0:
        return to_tensor(inputs.read(rows.rows.positions_N[:2]).inputs_B)
    viewed_B, _ = rows.read_view(np.arange(min(2, len(rows))), rows.views[0])
    return to_tensor(viewed_B)


def _evaluation(tests: TransferSet, sample_B: torch.Tensor, num_classes: int) -> Evaluation:
    if list(tests.input_shape) != list(sample_B.shape[1:]):
        raise TransferSetError(
            f"the evaluation's rows have the shape {list(tests.input_shape)}, those trained on "
            f"{list(sample_B.shape[1:])}; expected the same"
        )
    return Evaluation(tests, num_classes)


def identity(config: StudentConfig, data: StudentData) -> dict[str, Any]:
    """What makes this training the one that it is; JSON-able, free of paths and devices."""
    excluded = _NOT_IDENTITY | {"views": True} | ({"select": True} if config.select is None else {})
    views = {str(view): digest(data.store.views[view].pinned()) for view in data.rows.views if view}
    targets = config.targets.model_dump(mode="json", exclude={"views"})
    return {
        **canonical(config.model_dump(mode="json", exclude=excluded)),
        "targets": canonical(targets),
        **({"views": {"in turn": list(data.rows.views), "pinned": views}} if views else {}),
        "data": data.rows.digest,
        "teachers": {name: digest(data.store.teachers[name].pinned()) for name in data.targets.teachers},
    }


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA where there is one.

    Raises:
        StudentError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise StudentError(f"training.device {name!r} cannot be used here: {reason}") from error
    return device


def build_model(config: StudentConfig, data: StudentData, device: torch.device) -> torch.nn.Module:
    """The untrained model; equal seeds give equal parameters.

    Raises:
        FactoryError: The factory cannot be imported or raised.
        StudentError: It made no module, or one that does not fit the inputs or the store's classes.
    """
    add_to_path(config.python_path)
    torch.manual_seed(config.training.seed)
    model = call(config.model.factory, config.model.kwargs, what="student")
    if not isinstance(model, torch.nn.Module):
        raise StudentError(
            f"student: factory {config.model.factory!r} returned a {type(model).__name__}, "
            "expected a torch.nn.Module"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise StudentError(f"student: the model of {config.model.factory!r} has no parameter to train")
    model = model.to(device)
    _check_fits(model, config.preprocessing, data, device)
    return model


def _check_fits(
    model: torch.nn.Module, preprocessing: PreprocessingOptions, data: StudentData, device: torch.device
) -> None:
    batch = preprocessing.apply(data.sample_B.to(device))
    expected = [len(batch), data.targets.num_classes]
    model.eval()
    try:
        with torch.no_grad():
            logits = model(batch)
    except Exception as error:
        raise StudentError(
            f"student: the model raised {type(error).__name__} on a batch of shape {list(batch.shape)}: "
            f"{error}. Make preprocessing.shape what it expects"
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise StudentError(
            f"student: the model returned a {type(logits).__name__}, expected logits {expected}"
        )
    if list(logits.shape) != expected:
        raise StudentError(
            f"student: the model gives logits of shape {list(logits.shape)}, expected {expected}: "
            f"{data.targets.store.uri} has {expected[1]} classes"
        )
