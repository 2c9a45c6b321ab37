"""Top-k targets as plain Parquet, written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pipeline.exchange.importers.contract import ImporterContract, Written

from softcask.pipeline.exchange.importers.base import Opener, Source
from softcask.pipeline.exchange.importers.parquet import open_parquet
from softcask.storage_schemas.errors import ExchangeError

CLASSES = 10


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of ten a row, and their probabilities."""
    logits = np.random.default_rng(1).normal(size=(count, CLASSES))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = np.argsort(-probabilities, axis=1)[:, :3]
    return classes, np.take_along_axis(probabilities, classes, axis=1)


class TestParquet(ImporterContract):
    @property
    def opener(self) -> Opener:
        return open_parquet

    def write(self, folder: Path) -> Written:
        classes, probabilities = rows(12)
        ids = [f"id-{row}" for row in range(12)]
        table = pa.table(
            {"sample_id": ids, "indices": classes.tolist(), "logprobs": np.log(probabilities).tolist()}
        )
        target = folder / "targets"
        target.mkdir()
        pq.write_table(table.slice(0, 7), target / "part-2.parquet", row_group_size=3)
        pq.write_table(table.slice(7), target / "part-10.parquet", row_group_size=2)
        return Written(
            source=Source(path=target, classes=CLASSES),
            ids=ids,
            classes_NK=classes,
            log_probs_NK=np.log(probabilities),
            atol=1e-6,
            data=target / "part-10.parquet",
        )


def write(path: Path, **columns: Any) -> Source:
    """What pandas writes."""
    classes, probabilities = rows(5)
    standard = {
        "sample_id": list("abcde"),
        "indices": list(classes),
        "logprobs": list(np.log(probabilities)),
    }
    wanted = {name: value for name, value in {**standard, **columns}.items() if value is not None}
    pd.DataFrame(wanted).to_parquet(path)
    return Source(path=path, classes=CLASSES)


def test_probabilities_may_stand_in_place_of_their_logarithms(tmp_path: Path) -> None:
    classes, probabilities = rows(5)
    plain = open_parquet(write(tmp_path / "a.parquet")).read(np.arange(5)).log_probs_BK
    changed = {
        "indices": None,
        "logprobs": None,
        "classes": list(classes),
        "probabilities": list(probabilities),
    }
    other = open_parquet(write(tmp_path / "b.parquet", **changed))
    np.testing.assert_allclose(other.read(np.arange(5)).log_probs_BK, plain)


def test_a_tail_that_is_given_is_taken_if_it_is_what_is_missing_to_one(tmp_path: Path) -> None:
    _, probabilities = rows(5)
    tail = np.log(1 - probabilities.sum(axis=1))
    found = open_parquet(write(tmp_path / "a.parquet", tail_logprob=tail)).read(np.arange(5))
    np.testing.assert_allclose(found.tail_log_B, tail)
    wrong = write(tmp_path / "b.parquet", tail_logprob=tail - 1)
    with pytest.raises(ExchangeError, match=r"row 0 \(a\) has 0\.\d+ outside its classes, where 0\.\d+"):
        open_parquet(wrong).read(np.arange(5))


def test_labels_come_along(tmp_path: Path) -> None:
    found = open_parquet(write(tmp_path / "a.parquet", label=pd.array([3, None, 0, 1, 2], dtype="Int32")))
    assert found.labels() is not None
    np.testing.assert_array_equal(found.labels(), [3, -1, 0, 1, 2])
    assert open_parquet(write(tmp_path / "b.parquet")).labels() is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sample_id": None}, "found the columns indices, logprobs, expected sample_id"),
        ({"logprobs": None}, "expected .*logprobs or probabilities"),
        ({"sample_id": ["a", None, "c", "d", "e"]}, "1 rows without sample_id"),
        ({"indices": [1, 2, 3, 4, 5]}, "row 0 has int64 as indices, expected lists of numbers"),
        ({"label": list("abcde")}, "labels of type"),
        ({"indices": [[], *[[1, 2, 3]] * 4]}, "row 0 has 0 indices, expected 1 to 10"),
    ],
)
def test_a_table_that_is_not_of_this_kind_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExchangeError, match=message):
        open_parquet(write(tmp_path / "a.parquet", **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logprobs": [[-1.0, -2, -3], [-1.0, -2], *[[-1.0, -2, -3]] * 3]}, r"row 1 \(b\) has 2 logprobs"),
        ({"indices": [*[[1, 2, 3]] * 4, [1, 2, -1]]}, r"row 4 \(e\) names class -1"),
        ({"logprobs": [[-1.0, -3, -2], *[[-1.0, -2, -3]] * 4]}, r"row 0 \(a\) has probabilities that rise"),
        (
            {"logprobs": [*[[-1.0, -2, -3]] * 4, [None, -2, -3]]},
            "row 4 .e. has null among its logprobs, expected numbers",
        ),
        ({"logprobs": [[1.0, -2, -3], *[[-1.0, -2, -3]] * 4]}, r"row 0 \(a\) holds 1, expected finite"),
        ({"logprobs": [[-9.0, -9, -9], *[[-1.0, -2, -3]] * 4]}, "its classes are not the largest"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    found = open_parquet(write(tmp_path / "a.parquet", **changed))
    with pytest.raises(ExchangeError, match=message):
        found.read(np.arange(5))


def test_what_was_exported_at_another_temperature_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet")
    table = pq.read_table(source.path)
    for temperature, refused in ((4.0, True), (1.0, False)):
        facts = {"softcask": f'{{"temperature": {temperature}}}'}
        pq.write_table(table.replace_schema_metadata(facts), source.path)
        if refused:
            with pytest.raises(ExchangeError, match=r"exported at temperature 4\.0; expected .* T=1"):
                open_parquet(source)
        else:
            assert len(open_parquet(source).sample_ids()) == 5


def test_no_rows_and_no_files_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet")
    pq.write_table(pq.read_table(source.path).slice(0, 0), source.path)
    with pytest.raises(ExchangeError, match="no rows"):
        open_parquet(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExchangeError, match=r"no \.parquet file in this folder"):
        open_parquet(replace(source, path=tmp_path / "empty"))
