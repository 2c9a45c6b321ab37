from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from softcask.storage_schemas import tables
from softcask.storage_schemas.codecs.base import Decoded
from softcask.storage_schemas.stats import stats_table, top_classes


def table_of(logits_BC: NDArray[np.float32], labels: list[int] | None = None) -> dict[str, list]:
    row_max_B = logits_BC.max(axis=1)
    rows = len(logits_BC)
    table = stats_table(
        Decoded(shifted_BC=logits_BC - row_max_B[:, None], row_max_B=row_max_B),
        rows_B=np.arange(rows) + 40,
        sample_ids=pa.array([f"id-{row}" for row in range(rows)]),
        labels_B=np.array(labels or [-1] * rows),
    )
    assert table.schema.equals(tables.STATS)
    return table.to_pydict()


def expected_row(logits: list[float]) -> dict[str, object]:
    """One row by the textbook, in Python's floats (float64) with exact sums."""
    largest = max(logits)
    log_sum = largest + math.log(math.fsum(math.exp(logit - largest) for logit in logits))
    order = sorted(range(len(logits)), key=lambda place: (-logits[place], place))
    probabilities = [math.exp(logit - log_sum) for logit in logits]
    return {
        "top_classes": order[:5],
        "top_log_probs": [logits[place] - log_sum for place in order[:5]],
        "entropy": -math.fsum(p * (z - log_sum) for p, z in zip(probabilities, logits, strict=True) if p > 0),
        "margin": probabilities[order[0]] - probabilities[order[1]],
        "logsumexp": log_sum,
    }


def check(logits_BC: NDArray[np.float32]) -> None:
    found = table_of(logits_BC)
    for row, logits in enumerate(logits_BC.astype(np.float64).tolist()):
        expected = expected_row(logits)
        assert found["top_classes"][row] == expected.pop("top_classes")
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, rel=1e-6, abs=2e-6), (row, name)


@given(
    logits_BC=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.sampled_from([2, 3, 5, 6, 64, 65, 130])),
        # Quarters: their differences are exact in float32, and ties are common.
        elements=st.integers(-80, 80).map(lambda quarters: quarters / 4),
    )
)
def test_statistics_are_those_of_float64_formulas(logits_BC: NDArray[np.float32]) -> None:
    check(logits_BC)


@pytest.mark.parametrize("classes", [10, 1000])
def test_statistics_of_realistic_logits_are_those_of_float64_formulas(classes: int) -> None:
    check(np.random.default_rng(0).normal(0, 3, (20, classes)).astype(np.float32))


@pytest.mark.parametrize("classes", [2, 10, 64, 65, 1000])
def test_among_equals_the_lower_class_comes_first(classes: int) -> None:
    first = list(range(min(5, classes)))
    constant = np.full((1, classes), 1.5, dtype=np.float32)
    assert table_of(constant)["top_classes"] == [first]
    # One stands out; all others are cut off at the same least value, as dense16 does.
    cut = np.full((1, classes), -65504, dtype=np.float32)
    cut[0, -1] = 0
    assert table_of(cut)["top_classes"] == [[classes - 1, *first][: len(first)]]


@given(
    scores_BC=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 3), st.integers(2, 200)), elements=st.integers(0, 3)
    ),
    count=st.integers(1, 8),
)
def test_top_classes_are_those_of_a_stable_sort(scores_BC: NDArray[np.float32], count: int) -> None:
    expected = [
        sorted(range(scores_BC.shape[1]), key=lambda place: (-row[place], place))[:count]
        for row in scores_BC.tolist()
    ]
    assert top_classes(scores_BC, count).tolist() == expected


def test_a_class_that_is_certain_has_no_entropy_and_the_whole_margin() -> None:
    found = table_of(np.array([[0, -65504, -65504]], dtype=np.float32))
    assert (found["entropy"], found["margin"], found["logsumexp"]) == ([0.0], [1.0], [0.0])


def test_rows_carry_their_place_id_and_label_where_there_is_one() -> None:
    found = table_of(np.eye(3, dtype=np.float32), labels=[2, -1, 0])
    assert found["row"] == [40, 41, 42]
    assert found["sample_id"] == ["id-0", "id-1", "id-2"]
    assert found["label"] == [2, None, 0]


@pytest.mark.parametrize("classes", [10, 70])
def test_rows_do_not_depend_on_one_another_however_many_there_are(classes: int) -> None:
    logits_BC = np.random.default_rng(1).normal(0, 3, (1700, classes)).astype(np.float32)
    whole = table_of(logits_BC)
    for row in (0, 511, 512, 513, 1023, 1024, 1637, 1638, 1699):
        alone = table_of(logits_BC[row : row + 1])
        for name in ("top_classes", "top_log_probs", "entropy", "margin", "logsumexp"):
            assert whole[name][row] == alone[name][0]


def test_no_rows_give_an_empty_table() -> None:
    empty = Decoded(shifted_BC=np.empty((0, 9), np.float32), row_max_B=np.empty(0, np.float32))
    table = stats_table(
        empty, rows_B=np.arange(0), sample_ids=pa.array([], pa.string()), labels_B=np.empty(0, np.int64)
    )
    assert len(table) == 0
    assert table.schema.equals(tables.STATS)
