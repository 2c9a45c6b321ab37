"""The examples of where people train, each run as its reader would, over the first 2,000 digits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.examples.digits import MNIST, cut_digits
from tests.worlds import identities_of

EXAMPLES = MNIST.parent
TEST_ROWS = 500
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}


pytestmark = pytest.mark.timeout(600)  # each starts processes, and those import torch


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the MNIST demo with few rows, labelled by its teachers."""
    folder = tmp_path_factory.mktemp("mnist")
    for name in ("run.toml", "models.py"):
        shutil.copy(MNIST / name, folder)
    shutil.copytree(MNIST / "weights", folder / "weights")
    cut_digits(folder / "data", train=2000, t10k=TEST_ROWS)
    labelled = [str(BIN / "softcask"), "precompute", "run.toml", "--set", "executor.kind=serial"]
    subprocess.run(labelled, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return folder


def run(command: list[str], mnist: Path, output: Path, *options: str) -> str:
    """What an example prints."""
    given = ["--store", str(mnist / "out" / "cask"), "--data", str(mnist / "data"), "--output", str(output)]
    ended = subprocess.run(
        [*command, *given, *options], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def errors_in(printed: str) -> int:
    found = re.search(r"test errors: (\d+)", printed)
    assert found, printed
    return int(found[1])


def script(name: str) -> str:
    return str(EXAMPLES / name / "train.py")


MENDED = [sys.executable, str(EXAMPLES.parent / "tests" / "run_mended.py")]

TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    ("command", "most"),
    [
        ([sys.executable, script("torch_loop")], 0.25),
        ([*TORCHRUN, script("torchrun")], 0.25),
        pytest.param([sys.executable, script("ray_train")], 0.25, marks=pytest.mark.long),
        pytest.param([*MENDED, script("lightning")], 0.25, marks=pytest.mark.long),
        pytest.param([*MENDED, script("hf_trainer")], 0.7, marks=pytest.mark.long),
    ],
    ids=["torch_loop", "torchrun", "ray_train", "lightning", "hf_trainer"],
)
def test_an_example_learns_from_the_store_and_leaves_it_as_it_is(
    mnist: Path, tmp_path: Path, command: list[str], most: float
) -> None:
    before = identities_of(mnist / "out" / "cask")
    printed = run(command, mnist, tmp_path / "out", "--epochs", "4")
    # By chance nine of ten would be wrong.
    assert errors_in(printed) < most * TEST_ROWS
    assert identities_of(mnist / "out" / "cask") == before


@pytest.mark.long
def test_a_stopped_training_goes_on_and_ends_as_one_that_was_not(mnist: Path, tmp_path: Path) -> None:
    loop = [sys.executable, script("torch_loop")]
    run(loop, mnist, tmp_path / "stopped", "--epochs", "1")
    went_on = run(loop, mnist, tmp_path / "stopped", "--epochs", "2")
    at_once = run(loop, mnist, tmp_path / "at_once", "--epochs", "2")
    assert re.findall(r"epoch (\d)", went_on) == ["2"]
    assert went_on.splitlines() == at_once.splitlines()[1:]


@pytest.mark.long
def test_a_training_on_two_processes_goes_on_on_one(mnist: Path, tmp_path: Path) -> None:
    run([*TORCHRUN, script("torchrun")], mnist, tmp_path / "out", "--epochs", "1")
    on_one = [*TORCHRUN[:-1], "1", script("torchrun")]
    assert re.findall(r"epoch (\d)", run(on_one, mnist, tmp_path / "out", "--epochs", "2")) == ["2"]
