"""`softcask repair`, as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.jobs.conftest import Project
from tests.stores import flip
from tests.worlds import objects_of
from typer.testing import Result

Softcask = Callable[..., Result]
SHARD = "teachers/a/logits/s0000/v0000/logits/c/1/0"
STATS = "teachers/b/stats/s0000/v0000/part-00000002.parquet"


@pytest.fixture
def damaged(softcask: Softcask, project: Project) -> dict[str, bytes]:
    """A shard and a table of statistics hold a flipped bit; what the store held before."""
    assert softcask("precompute", project.run).exit_code == 0
    before = objects_of(Path(project.store))
    for key in (SHARD, STATS):
        Path(project.store, key).write_bytes(flip(before[key], len(before[key]) // 2))
    return before


def test_check_shows_what_would_be_done_and_does_nothing(
    softcask: Softcask, project: Project, damaged: dict[str, bytes]
) -> None:
    before = objects_of(Path(project.store))
    shown = softcask("repair", project.run, "--check")
    assert shown.exit_code == 1
    assert "label its unit again" in shown.stdout and "make its statistics again" in shown.stdout
    assert "1 unit would be labelled again" in shown.stdout and "nothing was changed" in shown.stdout
    assert SHARD in shown.stderr and STATS in shown.stderr
    assert objects_of(Path(project.store)) == before


def test_a_repaired_store_is_as_it_was(
    softcask: Softcask, project: Project, damaged: dict[str, bytes]
) -> None:
    assert softcask("verify", project.store).exit_code == 1
    done = softcask("repair", project.run, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["relabelled"] == [{"teacher": "a", "unit": "s0000-v0000-00000001"}]
    assert (told["restored"], told["left"]) == ([STATS], [])
    assert {each["key"]: each["action"] for each in told["found"]} == {SHARD: "label", STATS: "statistics"}
    after = objects_of(Path(project.store))
    kept = {key: data for key, data in damaged.items() if not key.startswith("catalog/")}
    assert {key: after[key] for key in kept} == kept
    assert softcask("verify", project.store).exit_code == 0
    again = softcask("repair", project.run)
    assert again.exit_code == 0 and "was sound already" in again.stdout


def test_what_only_a_copy_can_give_back_is_told(
    softcask: Softcask, project: Project, damaged: dict[str, bytes]
) -> None:
    Path(project.store, "teachers/a/teacher.json").unlink()
    project.edit("scale = 0.5", "scale = 0.25")
    told = softcask("repair", project.run)
    assert told.exit_code == 1
    assert "teachers/a/teacher.json is missing: this run's file and rows give another one" in told.stderr
    assert f"{SHARD} has CRC-32C" in told.stderr and "until the rest is seen to" in told.stderr
