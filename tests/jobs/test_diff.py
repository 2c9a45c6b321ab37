"""`softcask diff`, as a person calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stores import MadeStore, sealed_store
from typer.testing import Result

from softcask.pipeline.store.care.drops import drop, plan_drop

Softcask = Callable[..., Result]


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "store"))


def test_equal_stores_exit_with_0_and_others_with_1(
    softcask: Softcask, made: MadeStore, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    shutil.copytree(made.objects.root, other)
    same = softcask("diff", made.objects.uri, other)
    assert same.exit_code == 0, same.stderr
    assert "equal: students see the same in both" in same.stdout
    drop(made.objects, plan_drop(made.objects, teachers=["beta"]))
    found = softcask("diff", made.objects.uri, other)
    assert found.exit_code == 1
    assert f"only in {other}: beta" in found.stdout
    answer = softcask("diff", made.objects.uri, other, "--json")
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert (told["equal"], told["teachers_b"], told["rows"]["common"]) == (False, ["beta"], 19)


def test_two_teachers_of_one_store(softcask: Softcask, made: MadeStore) -> None:
    arguments = ("diff", made.objects.uri, "--teacher", "alpha", "--teacher", "beta")
    found = softcask(*arguments)
    assert found.exit_code == 1
    assert "alpha and beta" in found.stdout and "fingerprint.weights" in found.stdout
    told = json.loads(softcask(*arguments, "--sample", "5", "--json").stdout)
    assert told["divergence"]["rows"] == 5


@pytest.mark.parametrize("rest", [[], ["--teacher", "alpha"], ["other", "--teacher", "alpha"]])
def test_there_must_be_two_to_compare(softcask: Softcask, made: MadeStore, rest: list[str]) -> None:
    refused = softcask("diff", made.objects.uri, *rest)
    assert refused.exit_code == 2
    assert "two teachers" in refused.stderr
