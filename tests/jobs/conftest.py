"""A run file over a small world, and the command called as a person calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.worlds import TESTS, write_rows
from typer.testing import CliRunner, Result

from softcask.jobs.cli import app

STUDENT_FILE = f"""\
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

[model]
factory = "toy_models:net"
kwargs = {{ seed = 9, hidden = 8 }}
"""
"""All of a student file over the project's store but its `[training]`."""

RUN = """\
python_path = ["{tests}"]

[store]
uri = "cask"
unit_rows = 32

[transfer_set]
kind = "arrays"
inputs = "inputs.npy"
labels = "labels.npy"
max_quarantined = 0.1

[classes]
names = ["ant", "bee", "cow", "doe", "eel"]

[executor]
kind = "serial"

[[teachers]]
kind = "torch"
name = "a"
factory = "toy_models:net"
batch_size = 16
preprocessing = {{ scale = 0.5 }}

[[teachers]]
kind = "torch"
name = "b"
factory = "toy_models:net"
kwargs = {{ seed = 1 }}
batch_size = 16
preprocessing = {{ scale = 0.5 }}
"""


@dataclass(frozen=True)
class Project:
    """A folder with rows and a run file."""

    folder: Path

    @property
    def run(self) -> str:
        return str(self.folder / "run.toml")

    @property
    def store(self) -> str:
        return str(self.folder / "cask")

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "run.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    write_rows(tmp_path)
    (tmp_path / "run.toml").write_text(RUN.format(tests=TESTS))
    return Project(tmp_path)


@pytest.fixture
def softcask() -> Callable[..., Result]:
    """Calls the command in this process; stdout and stderr apart."""

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return call
