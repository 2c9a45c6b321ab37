"""`softcask import`, `reencode` and `combine` as a person calls them, and what `inspect` says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from tests.stores import MadeStore, sealed_store

from softcask.pipeline.store.reading.reader import open_store

Softcask = Callable[..., Result]
DISTILLKIT = str(Path(__file__).parents[1] / "data" / "distillkit" / "recommended")


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "cask"))


def test_an_import_tells_what_it_made_and_does_nothing_again(softcask: Softcask, tmp_path: Path) -> None:
    arguments = ("import", "distillkit", DISTILLKIT, str(tmp_path / "cask"), "--name", "llama")
    done = softcask(*arguments)
    assert done.exit_code == 0, done.stderr
    assert "teacher     llama, topk" in done.stdout
    assert "1 new unit of 1, 13 rows" in done.stdout
    again = softcask(*arguments)
    assert "nothing to do: all 1 stand" in again.stdout
    answer = json.loads(softcask(*arguments, "--json").stdout)
    assert (answer["teacher"], answer["units"], answer["new_units"]) == ("llama", 1, 0)


def test_every_option_reaches_its_format(softcask: Softcask, tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    for name, array in {"z": logits, "ids": np.arange(6), "labels": np.array([0, 1, 2, 0, 1, 2])}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    files = {"--ids": "ids.npy", "--labels": "labels.npy", "--class-names": "names.txt"}
    options = [part for key, file in files.items() for part in (key, str(tmp_path / file))]
    uri = str(tmp_path / "cask")
    done = softcask(
        "import", "npy", str(tmp_path / "z.npy"), uri, "--name", "z", *options, "--unit-rows", "4"
    )
    assert done.exit_code == 0, done.stderr
    store = open_store(uri)
    assert store.class_names == ("ant", "bee", "cow")
    assert store.rows.sample_ids.tolist() == list("012345")
    assert store.rows.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert [segment.units for segment in store.segments] == [2]
    refused = softcask("import", "npy", str(tmp_path / "z.npy"), uri, "--name", "y", "--top-k", "2")
    assert (refused.exit_code, "--top-k means nothing to format 'npy'" in refused.stderr) == (2, True)


def test_inspect_says_where_each_entry_comes_from(
    softcask: Softcask, made: MadeStore, tmp_path: Path
) -> None:
    uri = made.objects.uri
    one = softcask("reencode", uri, "--teacher", "alpha", "--codec", "dense8", "--into", "alpha8")
    assert "teacher     alpha8, dense8" in one.stdout, one.stderr
    two = softcask("combine", uri, "--teachers", "alpha,beta", "--weights", "1,2", "--into", "both")
    assert "3 new units of 3, 19 rows" in two.stdout, two.stderr
    np.save(tmp_path / "z.npy", np.zeros((19, 3), np.float32))
    np.save(tmp_path / "ids.npy", np.array([f"id-{row:03d}" for row in range(20) if row != 5]))
    npy, ids = str(tmp_path / "z.npy"), str(tmp_path / "ids.npy")
    assert softcask("import", "npy", npy, uri, "--name", "flat", "--ids", ids).exit_code == 0
    teachers = json.loads(softcask("inspect", uri, "--json").stdout)["teachers"]
    assert {name: teacher["origin"] for name, teacher in teachers.items()} == {
        "alpha": "torch",
        "alpha8": "reencode of alpha",
        "beta": "torch",
        "both": "mean of alpha, beta",
        "flat": "import npy",
    }
    assert "mean of alpha, beta" in softcask("inspect", uri).stdout


def test_the_mean_of_members_counts_no_derived_entry(softcask: Softcask, made: MadeStore) -> None:
    uri = made.objects.uri

    def mean() -> object:
        found = json.loads(softcask("inspect", uri, "--row", "id-000", "--json").stdout)
        return found["samples"][0]["teachers"]["mean of members"]

    before = mean()
    softcask("reencode", uri, "--teacher", "alpha", "--codec", "dense8", "--into", "alpha8")
    assert mean() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reencode", "--teacher", "alpha", "--into", "alpha"), "is the name of a teacher it would be made"),
        (("reencode", "--teacher", "alpha", "--into", "b", "--codec", "zip"), "unknown codec 'zip'"),
        (
            ("reencode", "--teacher", "alpha", "--into", "b", "--codec", "auto"),
            "found neither max_bytes (bytes a row) nor max_kl",
        ),
        (("reencode", "--teacher", "alpha", "--into", "b", "--max-bytes", "1"), "max_bytes: Input should be"),
        (("combine", "--teachers", "alpha,gamma", "--into", "b"), "has no teacher 'gamma'"),
        (("combine", "--teachers", "alpha,beta", "--into", "b", "--rule", "x"), "unknown rule 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_message(
    arguments: tuple[str, ...], message: str, softcask: Softcask, made: MadeStore
) -> None:
    done = softcask(arguments[0], made.objects.uri, *arguments[1:])
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert made.objects.parts("teachers") == ["alpha", "beta"]
