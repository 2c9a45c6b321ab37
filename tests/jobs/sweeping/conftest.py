"""A student file over the project's store, and the project's fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.jobs.conftest import Project, one_thread, project, softcask
from tests.worlds import TESTS

__all__ = ["Project", "one_thread", "project", "softcask", "student"]

STUDENT = f"""\
store = "cask"
output = "student"
python_path = ["{TESTS}"]

[targets]
temperature = 4

[transfer_set]
kind = "arrays"
inputs = "inputs.npy"
labels = "labels.npy"

[evaluation]
kind = "arrays"
inputs = "inputs.npy"
labels = "labels.npy"

[loss]
kind = "distillation"

[model]
factory = "toy_models:net"
kwargs = {{ seed = 9, hidden = 8 }}

[training]
epochs = 2
batch_size = 64
dtype = "float32"
"""


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.toml"
    path.write_text(STUDENT)
    return path
