"""Trainings whose process is killed in the middle of an epoch: what goes on is what would have been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

TRAIN = """
import sys
import torch
from softcask.pipeline.student import train_student
from softcask.pipeline.student.config import StudentConfig
torch.set_num_threads(1)
train_student(StudentConfig.model_validate_json(sys.argv[1]))
"""


def config_of(world: Any, output: str, **training: Any) -> str:
    from softcask.pipeline.student.config import StudentConfig

    sections = {
        "store": world.store,
        "python_path": [str(Path(__file__).parents[1])],
        "output": str(world.folder / output),
        "transfer_set": {"kind": "arrays", "inputs": str(world.folder / "inputs.npy"), "id_prefix": "row"},
        "model": {"factory": "models_for_tests:Mortal"},
        "optimiser": {"lr": 0.01, "schedule": "one_cycle"},
        "training": {
            "epochs": 3,
            "batch_size": 9,
            "dtype": "float32",
            "seed": 4,
            **training,
        },
    }
    return StudentConfig.model_validate(sections).model_dump_json()


def train(config: str, dies_at: int | None = None) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if dies_at is not None:
        environment["SOFTCASK_DIES_AT"] = str(dies_at)
    command = [sys.executable, "-c", TRAIN, config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if dies_at is None else -signal.SIGKILL), done.stderr


def assert_equal_bits(world: Any, one: str, other: str, name: str) -> None:
    found, expected = (load_file(world.folder / output / name) for output in (one, other))
    assert found.keys() == expected.keys()
    for key, values in found.items():
        np.testing.assert_array_equal(values, expected[key], err_msg=key, strict=True)


@pytest.mark.timeout(300)
def test_a_training_killed_twice_ends_with_the_same_losses_and_weights_to_the_bit(world: Any) -> None:
    """69 steps. How often checkpoints are kept, and who reads ahead, is another thing each time."""
    train(config_of(world, "straight"))
    dies_at = int(np.random.default_rng(7).integers(6, 23))
    train(config_of(world, "killed", checkpoint_every_steps=5), dies_at)
    train(config_of(world, "killed", checkpoint_every_steps=2, num_workers=1), 31)
    assert not (world.folder / "killed" / "model.safetensors").exists()
    train(config_of(world, "killed", checkpoint_every_seconds=1e-9))
    for name in ("losses", "model", "checkpoint"):
        assert_equal_bits(world, "killed", "straight", f"{name}.safetensors")
    losses = load_file(world.folder / "killed" / "losses.safetensors")["losses"]
    assert losses.shape == (69,) and np.isfinite(losses).all()
