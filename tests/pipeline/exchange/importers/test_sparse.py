"""Known classes as the codec keeps them, against the codec's own encoder over all classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.sparse import (
    LEAST_MASS,
    TopRows,
    checked,
    columns_of,
    even_rows,
)
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import ExchangeError


def codec(classes: int, head: int) -> TopK:
    return TopK(settings=Settings(num_classes=classes, head_size=head, temperatures=(1.0,)))


def decoded(columns: dict[str, NDArray[Any]], made: TopK) -> NDArray[np.float64]:
    """Probabilities at T=1."""
    logits = made.decode(columns).shifted_BC.astype(np.float64)
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@given(st.data())
def test_what_is_known_of_a_distribution_is_kept_as_the_codec_keeps_the_whole(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 40))
    top = data.draw(st.integers(1, classes))
    seed, scale = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0.1, 1.0, 5.0]))
    logits = scale * np.random.default_rng(seed).normal(size=(3, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    known = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    log_probs = np.log(np.take_along_axis(probabilities, known, axis=1))
    made = codec(classes, top)
    columns = columns_of(checked(TopRows(classes_BK=known, log_probs_BK=log_probs), classes, str), made)
    whole = made.encode(logits.astype(np.float32))
    assert {name: (v.dtype, v.shape) for name, v in columns.items()} == {
        name: (v.dtype, v.shape) for name, v in whole.items()
    }
    np.testing.assert_array_equal(columns["classes"], whole["classes"])
    np.testing.assert_allclose(columns["logits"], whole["logits"], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(decoded(columns, made), decoded(whole, made), atol=2e-3)


def test_where_nothing_is_left_a_little_is() -> None:
    rows = TopRows(classes_BK=np.array([[1, 0]]), log_probs_BK=np.log([[0.75, 0.25]]))
    found = checked(rows, 6, str)
    assert found.tail_log_B is not None
    np.testing.assert_allclose(np.exp(found.tail_log_B), LEAST_MASS)


def test_no_other_class_is_larger_than_a_known_one() -> None:
    rows = TopRows(classes_BK=np.array([[1]]), log_probs_BK=np.log([[0.4998]]))
    found = decoded(columns_of(checked(rows, 2, str), codec(2, 1)), codec(2, 1))
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-3)


def test_rows_of_which_nothing_is_known_are_even() -> None:
    for classes, top in ((7, 2), (3, 3)):
        made = codec(classes, top)
        found = decoded(columns_of(even_rows(2, made), made), made)
        np.testing.assert_allclose(found, 1 / classes, atol=1e-3)


def test_a_tail_that_is_not_a_number_is_refused() -> None:
    rows = TopRows(classes_BK=np.array([[0]]), log_probs_BK=np.log([[0.5]]), tail_log_B=np.array([np.nan]))
    with pytest.raises(ExchangeError, match="row 0 has nan outside"):
        checked(rows, 3, lambda row: f"row {row}")
