"""`softcask migrate`, as a person calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.worlds import identities_of
from typer.testing import Result

Softcask = Callable[..., Result]
OLD = Path(__file__).parents[1] / "data" / "store_v1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def test_check_says_how_old_a_store_is_and_changes_nothing(softcask: Softcask, old: Path) -> None:
    before = identities_of(old)
    shown = softcask("migrate", str(old), "--check")
    assert shown.exit_code == 0, shown.stderr
    assert "format 1    15 documents" in shown.stdout and "generation 2, 2 tables" in shown.stdout
    assert "nothing was changed" in shown.stdout
    assert identities_of(old) == before


def test_it_is_done_once_and_is_safe_twice(softcask: Softcask, old: Path) -> None:
    told = json.loads(softcask("migrate", str(old), "--json").stdout)
    assert (told["versions"], told["tables"], told["migrated_to"]) == ({"1": 15}, 2, 3)
    assert softcask("verify", str(old)).exit_code == 0
    before = identities_of(old)
    again = softcask("migrate", str(old))
    assert again.exit_code == 0 and "nothing to do" in again.stdout
    assert identities_of(old) == before
