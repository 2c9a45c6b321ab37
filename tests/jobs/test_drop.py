"""`softcask drop`, as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.stores import MadeStore, all_objects, sealed_store
from typer.testing import CliRunner, Result

from softcask.jobs.cli import app
from softcask.pipeline.store.reading.reader import open_store

Softcask = Callable[..., Result]


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "store"))


def test_a_dry_run_shows_and_changes_nothing(softcask: Softcask, made: MadeStore) -> None:
    before = all_objects(made.objects)
    shown = softcask("drop", made.objects.uri, "--teacher", "alpha", "--dry-run")
    assert shown.exit_code == 0
    assert "teacher     alpha" in shown.stdout
    assert "19 rows now, 19 after" in shown.stdout
    assert all_objects(made.objects) == before


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, ["beta"]), ("n", 1, ["alpha", "beta"])])
def test_it_asks_first(made: MadeStore, answer: str, code: int, left: list[str]) -> None:
    arguments = ["drop", made.objects.uri, "--teacher", "alpha"]
    asked = CliRunner().invoke(app, arguments, input=f"{answer}\n")
    assert "Drop this?" in asked.stderr
    assert asked.exit_code == code
    assert sorted(open_store(made.objects.uri).teachers) == left


def test_rows_are_named_by_a_file(softcask: Softcask, made: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("id-002\nid-019\n\nid-002\n")
    arguments = ("drop", made.objects.uri, "--rows", str(tmp_path / "ids.txt"), "--yes", "--json")
    done = json.loads(softcask(*arguments).stdout)
    assert (done["sample_ids"], done["readable"], done["readable_after"]) == (["id-002", "id-019"], 19, 17)
    assert done["generation"] == open_store(made.objects.uri).generation == 2
    again = json.loads(softcask(*arguments).stdout)
    assert (again["sample_ids"], again["generation"]) == ([], 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to drop"),
        (["--teacher", "alpha", "--json"], "--json cannot ask"),
        (["--teacher", "gamma", "--yes"], "no teacher 'gamma'; it has: alpha, beta"),
        (["--rows", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_it_cannot_do_is_one_message(
    softcask: Softcask, made: MadeStore, arguments: list[str], said: str
) -> None:
    refused = softcask("drop", made.objects.uri, *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr
