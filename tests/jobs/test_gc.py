"""`softcask gc`, as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stores import MadeStore, all_objects, sealed_store
from typer.testing import Result

from softcask.pipeline.store.care.drops import drop, plan_drop

Softcask = Callable[..., Result]


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Alpha is dropped and still stands."""
    made = sealed_store(str(tmp_path / "store"))
    drop(made.objects, plan_drop(made.objects, teachers=["alpha"]))
    return made


def test_without_delete_it_only_shows(softcask: Softcask, made: MadeStore) -> None:
    before = all_objects(made.objects)
    shown = softcask("gc", made.objects.uri, "--older-than", "0s")
    assert shown.exit_code == 0
    assert "of what was dropped" in shown.stdout and "would go; nothing was changed" in shown.stdout
    assert "free to be used again would be: alpha" in shown.stdout
    assert all_objects(made.objects) == before


def test_what_is_young_stays_unless_told_otherwise(softcask: Softcask, made: MadeStore) -> None:
    told = softcask("gc", made.objects.uri, "--delete")
    assert "nothing to take" in told.stdout
    assert any(key.startswith("teachers/alpha/") for key in all_objects(made.objects))


def test_delete_takes_it_and_says_what(softcask: Softcask, made: MadeStore) -> None:
    before = all_objects(made.objects)
    told = json.loads(softcask("gc", made.objects.uri, "--older-than", "0s", "--delete", "--json").stdout)
    after = all_objects(made.objects)
    gone = [key for key in before if key.startswith("teachers/alpha/")]
    assert told["garbage"]["dropped"]["objects"] == len(gone)
    assert told["garbage"]["dropped"]["bytes"] == sum(len(before[key]) for key in gone)
    assert sorted(told["keys"]) == sorted(before.keys() - after.keys())
    assert told["taken"] == len(told["keys"])
    assert told["freed"] == {"teachers": ["alpha"], "segments": []}
    again = softcask("gc", made.objects.uri, "--older-than", "1d", "--delete")
    assert again.exit_code == 0 and "nothing to take" in again.stdout


@pytest.mark.parametrize("age", ["7", "d", "-1d", "7 d", "1w"])
def test_an_age_that_is_none_is_refused(softcask: Softcask, made: MadeStore, age: str) -> None:
    refused = softcask("gc", made.objects.uri, f"--older-than={age}")
    assert refused.exit_code == 2
    assert "such as 12h or 7d" in refused.stderr
