"""Each snippet of docs/training.md runs, over the first rows of MNIST."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.examples.digits import MNIST, cut_digits

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
SNIPPETS = {
    part.partition("\n")[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)
}
SHARED, PLAIN = SNIPPETS["Plain torch"]
BIN = Path(sys.executable).parent
ALONE = [sys.executable, str(Path(__file__).parents[1] / "run_mended.py")]
LAUNCHED = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]


pytestmark = pytest.mark.timeout(600)  # each starts processes, and those import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's reader stands: beside `data/` and `out/cask`."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("run.toml", "models.py"):
        shutil.copy(MNIST / name, folder)
    shutil.copytree(MNIST / "weights", folder / "weights")
    cut_digits(folder / "data", train=600, t10k=100)
    labelled = [str(BIN / "softcask"), "precompute", "run.toml", "--set", "executor.kind=serial"]
    subprocess.run(labelled, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (ALONE, PLAIN),
        (LAUNCHED, *SNIPPETS["torchrun"]),
        (ALONE, *SNIPPETS["Ray Train"]),
        (ALONE, *SNIPPETS["Hugging Face Trainer"]),
        (ALONE, *SNIPPETS["Lightning"]),
    ],
    ids=["plain torch", "torchrun", "Ray Train", "Hugging Face", "Lightning"],
)
def test_a_snippet_runs(folder: Path, command: list[str], code: str) -> None:
    script = folder / "snippet.py"
    script.write_text(f"{SHARED}\n{code}")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ended = subprocess.run(
        [*command, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def test_examples_that_the_page_names_are_there() -> None:
    named = re.findall(r"\]\(\.\./(examples/[^)]+)\)", PAGE)
    assert len(named) == 6
    assert all((Path(__file__).parents[2] / each).is_file() for each in named)
