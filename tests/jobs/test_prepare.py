"""`softcask prepare` as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.worlds import objects_of
from typer.testing import Result

Softcask = Callable[..., Result]

RUN = """
[store]
uri = "cask"
[transfer_set]
kind = "image_folder"
root = "images"
image = { height = 6, width = 4, mode = "L" }
[classes]
count = 2
[[teachers]]
name = "a"
kind = "torch"
factory = "nowhere:at_all"
[executor]
kind = "serial"
"""

KILLED = """
import os, signal, sys
from softcask.pipeline.preparing import block
from softcask.jobs.cli import app
publish, calls = block.publish_table, []
def die(*arguments):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(*arguments)
block.publish_table = die
app(sys.argv[1:])
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for row in range(12):
        place = tmp_path / "images" / "ab"[row % 2] / f"{row:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 9), dtype=np.uint8)).save(place)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path / "run.toml"


def test_it_says_what_to_put_in_the_place_of_the_source(
    run: Path, softcask: Softcask, tmp_path: Path
) -> None:
    done = softcask("prepare", str(run), "--into", str(tmp_path / "p"), "--block-rows", "5")
    assert done.exit_code == 0, done.stderr
    assert "rows        12 in 3 blocks, 3 of them made now" in done.stdout
    assert f'kind = "prepared"\n            path = "{tmp_path}/p"' in done.stdout
    again = softcask("prepare", str(run), "--into", str(tmp_path / "p"), "--json")
    answer: dict[str, Any] = json.loads(again.stdout)
    assert (answer["made"], answer["blocks"], answer["rows"]) == (0, 3, 12)


def test_killed_and_run_again_it_leaves_what_an_undisturbed_one_leaves(
    run: Path, softcask: Softcask, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-c",
        KILLED,
        "prepare",
        str(run),
        "--into",
        str(tmp_path / "p"),
        "--block-rows",
        "3",
    ]
    assert subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": ""}).returncode == -signal.SIGKILL
    stood = sorted(path.name for path in (tmp_path / "p" / "blocks").glob("*.json"))
    assert stood == ["00000000.json", "00000001.json"]
    assert softcask("prepare", str(run), "--into", str(tmp_path / "p")).exit_code == 0
    assert softcask("prepare", str(run), "--into", str(tmp_path / "q"), "--block-rows", "3").exit_code == 0
    assert objects_of(tmp_path / "p") == objects_of(tmp_path / "q")


def test_what_cannot_be_prepared_is_one_message(run: Path, softcask: Softcask, tmp_path: Path) -> None:
    (tmp_path / "images" / "a" / "00.png").write_bytes(b"no image")
    refused = softcask("prepare", str(run), "--into", str(tmp_path / "p"))
    assert refused.exit_code == 2 and "1 of 12 rows (8.33%) cannot be read: 'a/00.png'" in refused.stderr
    allowed = softcask(
        "prepare", str(run), "--into", str(tmp_path / "p"), "--set", "transfer_set.max_quarantined=0.1"
    )
    assert allowed.exit_code == 0 and "warning: 1 row could not be read and stay unreadable" in allowed.stderr
    assert softcask("prepare", str(run)).exit_code == 2
