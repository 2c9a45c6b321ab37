"""`softcask export` as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from tests.stores import MadeStore, sealed_store

Softcask = Callable[..., Result]


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    return sealed_store(str(tmp_path / "cask"))


def test_the_answer_names_file_rows_and_checksum(softcask: Softcask, made: MadeStore, tmp_path: Path) -> None:
    out = str(tmp_path / "out.parquet")
    done = softcask("export", made.objects.uri, out, "--teachers", "alpha", "--temperature", "4")
    assert done.exit_code == 0, done.stderr
    assert f"wrote       {out}\n" in done.stdout
    assert "rows        19 of alpha; 1 file" in done.stdout
    expected = made.readable_logits("alpha").astype(np.float64) / 4
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    found = np.stack(pd.read_parquet(out)["probabilities"])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_rows_are_chosen_by_a_file_of_ids_or_by_their_number(
    softcask: Softcask, made: MadeStore, tmp_path: Path
) -> None:
    out, ids = str(tmp_path / "out.parquet"), tmp_path / "ids.txt"
    ids.write_text("id-007\nid-002\nid-003\n")
    arguments = ("export", made.objects.uri, out, "--logits", "--rows", str(ids), "--limit", "2", "--json")
    done = softcask(*arguments)
    assert json.loads(done.stdout)["rows"] == 2
    frame = pd.read_parquet(out)
    assert frame["sample_id"].tolist() == ["id-007", "id-002"]
    mean = (made.readable_logits("alpha") + made.readable_logits("beta"))[[6, 2]] / 2
    np.testing.assert_allclose(np.stack(frame["logits"]), mean, atol=4e-3)


def test_an_unknown_id_is_named(softcask: Softcask, made: MadeStore, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("id-007\nid-005\n")
    done = softcask("export", made.objects.uri, str(tmp_path / "out"), "--rows", str(tmp_path / "ids.txt"))
    assert done.exit_code == 2
    assert "1 of 2 ids are no readable rows" in done.stderr
    assert "'id-005'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--logits", "--temperature", "2"), "logits have no temperature"),
        (("--weights", "1,x"), "--weights 1,x: expected numbers"),
        (("--teachers", "alpha,gamma"), "has no teacher gamma"),
        (("--rule", "median"), "unknown rule kind 'median'"),
        (("--temperature", "50"), "good for 0.5 to 20"),
        (("--top-k", "9"), "the top 9 of 3 classes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_message(
    arguments: tuple[str, ...], message: str, softcask: Softcask, made: MadeStore, tmp_path: Path
) -> None:
    done = softcask("export", made.objects.uri, str(tmp_path / "out.parquet"), *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out.parquet").exists()
