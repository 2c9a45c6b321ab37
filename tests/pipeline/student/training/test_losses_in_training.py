"""What losses need reaches them through a whole training: T of the epoch, columns as stored, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import kl_div

from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.student import StudentProgress, train_student
from softcask.pipeline.student.config import StudentConfig
from softcask.pipeline.student.loading.batch import StudentBatch
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.training.precision import Precision
from softcask.pipeline.student.training.step import StudentStep
from softcask.storage_schemas.errors import StoreError


def config_of(world: Any, output: str, **sections: Any) -> StudentConfig:
    base = {
        "store": world.store,
        "python_path": [str(Path(__file__).parents[1])],
        "output": str(world.folder / output),
        "targets": {"temperature": 8},
        "transfer_set": {"kind": "arrays", "inputs": str(world.folder / "inputs.npy"), "id_prefix": "row"},
        "model": {"factory": "models_for_tests:mlp"},
        "loss": {"kind": "distillation", "hard_label_weight": 0.0},
        "optimiser": {"kind": "sgd", "lr": 0.05},
        "training": {"epochs": 3, "batch_size": 32, "dtype": "float32", "seed": 4},
    }
    return StudentConfig.model_validate(base | sections)


def weights(config: StudentConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output) / "model.safetensors")


FALLING = {"temperature": 8, "schedule": {"kind": "linear", "to": 2}}


def test_a_plain_torch_loop_at_each_epochs_temperature_gives_the_same_student(world: Any) -> None:
    config = config_of(world, "out", targets=FALLING)
    result = train_student(config)
    assert (result.temperature, result.last_temperature) == (8, 2)

    from models_for_tests import mlp  # type: ignore[import-not-found]

    store = open_store(world.store)
    logits_MNC = [torch.from_numpy(store.logits(name, np.arange(200))) for name in "ab"]
    inputs = torch.from_numpy(world.inputs)
    torch.manual_seed(4)
    model = mlp()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, foreach=False)
    for epoch, temperature in enumerate((8, 5, 2)):
        targets = sum((logits / temperature).softmax(1) for logits in logits_MNC) / 2
        order = np.random.default_rng(np.random.SeedSequence((4, epoch))).permutation(200)
        for batch in np.split(order, range(32, 200, 32)):
            logits = model(inputs[batch])
            loss = kl_div((logits / temperature).log_softmax(1), targets[batch], reduction="batchmean")
            optimiser.zero_grad()
            (temperature**2 * loss).backward()
            optimiser.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights(config)[name], tensor, rtol=1e-4, atol=1e-5)


class Stop(Exception):
    """Stands for a killed process."""


def test_a_training_resumed_while_its_temperature_moves_ends_with_the_same_bits(world: Any) -> None:
    straight, broken = (config_of(world, name, targets=FALLING) for name in ("straight", "broken"))
    train_student(straight)

    def stop(state: StudentProgress) -> None:
        if state.epoch == 1 and state.loss is not None:
            raise Stop

    with pytest.raises(Stop):
        train_student(broken, progress=stop)
    train_student(broken)
    for name, tensor in weights(straight).items():
        torch.testing.assert_close(weights(broken)[name], tensor, rtol=0, atol=0)


def test_a_schedule_that_leaves_what_the_codec_claims_is_refused_before_training(world: Any) -> None:
    targets = {"temperature": 8, "schedule": {"kind": "cosine", "to": 50}}
    with pytest.raises(StoreError, match=r"temperature 50 asked of teacher 'a' .* good for 0\.5 to 20"):
        train_student(config_of(world, "out", targets=targets))
    assert not (world.folder / "out" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_learning_from_columns_gives_the_student_that_dense_soft_targets_give(
    world: Any, weight: float
) -> None:
    targets = {"teachers": ["a"], "temperature": 4}
    dense, straight = (
        config_of(world, kind, targets=targets, loss={"kind": kind, "hard_label_weight": weight})
        for kind in ("distillation", "compressed_kl")
    )
    one, other = train_student(dense), train_student(straight)
    assert other.loss == pytest.approx(one.loss, rel=1e-4)
    for name, tensor in weights(dense).items():
        torch.testing.assert_close(weights(straight)[name], tensor, rtol=1e-4, atol=1e-5)


def test_columns_of_several_teachers_are_refused_and_what_to_do_is_said(world: Any) -> None:
    with pytest.raises(StoreError, match="one teacher's; found a, b of .* Name one in the targets' teachers"):
        train_student(config_of(world, "out", loss={"kind": "compressed_kl"}))


def test_rows_of_weight_0_move_nothing_and_weights_are_factors() -> None:
    random = np.random.default_rng(3)
    batch = StudentBatch(
        inputs=torch.from_numpy(random.normal(size=(4, 3)).astype(np.float32)),
        targets=torch.from_numpy(random.dirichlet(np.ones(5), 4).astype(np.float32)),
        labels_B=torch.tensor([0, -1, 3, 4]),
        positions_B=torch.arange(4),
        rows_B=torch.arange(4),
        weights_B=torch.tensor([0.0, 4.0, 0.0, 0.0]),
        temperature=3.0,
    )
    step = StudentStep(preprocessing=PreprocessingOptions(), loss=Distillation(), device=torch.device("cpu"))
    moved = []
    for each in (batch, replace(batch.cut(1, 2), weights_B=None)):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 5)
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        step.train(model, optimiser, each, Precision(dtype="float32", device_type="cpu"))
        moved.append(model.weight.detach())
    torch.testing.assert_close(moved[0], moved[1])
