"""Which rows are learned from: compared with what NumPy finds in the logits themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.student import Selection, loader
from softcask.storage_schemas.errors import ConfigError, StoreError


def chosen(world: Any, **selection: Any) -> list[int]:
    found = loader(world.store, select=Selection.model_validate(selection), batch_size=64)
    return sorted(row for batch in found for row in batch.rows_B.tolist())


def probabilities(world: Any, name: str) -> NDArray[np.float64]:
    # As stored: float16 below the row's maximum.
    logits = world.logits[name]
    kept = (logits - logits.max(1, keepdims=True)).astype(np.float16).astype(np.float64)
    powers = np.exp(kept)
    return np.asarray(powers / powers.sum(1, keepdims=True))


def statistic(world: Any, name: str) -> NDArray[np.float64]:
    values = []
    for teacher in "ab":
        p = probabilities(world, teacher)
        top = np.sort(p, axis=1)
        entropy = -(p * np.log(p)).sum(1)
        values.append({"confidence": top[:, -1], "margin": top[:, -1] - top[:, -2], "entropy": entropy}[name])
    return np.asarray(np.mean(values, axis=0))


@pytest.mark.parametrize("name", ["confidence", "entropy", "margin"])
def test_a_range_of_a_statistic_is_of_its_mean_over_the_teachers(world: Any, name: str) -> None:
    values = statistic(world, name)
    low, high = (float(np.quantile(values, share)) for share in (0.31, 0.72))
    expected = np.flatnonzero((values >= low) & (values <= high)).tolist()
    assert 60 < len(expected) < 100
    assert chosen(world, **{name: {"at_least": low, "at_most": high}}) == expected
    assert len(chosen(world, **{name: {"at_least": low}})) == (values >= low).sum()


def test_classes_are_chosen_by_label_under_index_or_name(world: Any) -> None:
    expected = np.flatnonzero(np.isin(world.labels, [1, 3])).tolist()
    assert chosen(world, classes=[1, "class3"]) == expected


def test_ids_are_chosen_whatever_their_order(world: Any) -> None:
    assert chosen(world, ids=["row-00000150", "row-00000003"]) == [3, 150]


def test_all_that_is_said_must_hold(world: Any) -> None:
    both = chosen(world, classes=[1], confidence={"at_least": 0.9})
    assert both == sorted({*chosen(world, classes=[1])} & {*chosen(world, confidence={"at_least": 0.9})})
    assert 0 < len(both) < len(chosen(world, classes=[1]))


def test_a_condition_in_sql_is_over_the_statistics(world: Any) -> None:
    p = probabilities(world, "a")
    expected = np.flatnonzero((p.max(1) < 0.8) & (world.labels == p.argmax(1))).tolist()
    assert expected
    assert chosen(world, sql="teacher = 'a' AND confidence < 0.8 AND label = top_class") == expected


def test_a_whole_query_in_sql_gives_ids(world: Any) -> None:
    votes = probabilities(world, "a").argmax(1), probabilities(world, "b").argmax(1)
    sql = "SELECT sample_id FROM stats GROUP BY sample_id HAVING count(DISTINCT top_class) = 2"
    assert chosen(world, sql=sql) == np.flatnonzero(votes[0] != votes[1]).tolist()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("entrpy < 1", r"(?s)select.sql fails: .*entrpy.*has the columns sample_id"),
        ("SELECT label FROM stats", "gives the columns label; expected one called sample_id"),
        ("SELECT 'nobody' AS sample_id", "gives sample ids that .* does not have"),
        ("SELECT * FROM read_csv('/etc/passwd')", "select.sql fails"),
    ],
)
def test_sql_that_does_not_choose_rows_is_refused(world: Any, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(world, sql=sql)


def test_sql_without_duckdb_names_the_extra(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'softcask\[sql\]'"):
        chosen(world, sql="entropy < 1")
    assert chosen(world, entropy={"at_most": 1}), "which needs no duckdb"


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (
            {"classes": ["cat"]},
            ConfigError,
            "'cat'; expected an index from 0 to 4, or a class name as 'class0'",
        ),
        ({"classes": [5]}, ConfigError, "select.classes has 5"),
        ({"ids": ["nobody"]}, ConfigError, r"1 of 1 ids to select are not in .*\(nobody\)"),
        ({"confidence": {"at_least": 1.5}}, StoreError, "none of the 200 rows is left"),
        ({"confidence": {}}, ValidationError, "neither at_least nor at_most"),
        ({"margin": {"at_least": 2, "at_most": 1}}, ValidationError, "no number is at least 2 and at most 1"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(
    world: Any, selection: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        chosen(world, **selection)


def test_a_row_without_label_is_of_no_class(make_world: Callable[..., Any]) -> None:
    world = make_world(labelled=False)
    with pytest.raises(StoreError, match="none of the 200 rows is left"):
        chosen(world, classes=[0, 1, 2, 3, 4])
