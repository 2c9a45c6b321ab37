"""Known classes spread over all, against float64 sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.pipeline.exchange.importers.sparse import LEAST_MASS, TopRows, spread
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import ExchangeError


@given(st.data())
def test_what_is_known_of_any_distribution_comes_back_and_the_codec_keeps_it(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 40))
    top = data.draw(st.integers(1, classes))
    seed, scale = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0.1, 1.0, 5.0, 20.0]))
    logits = scale * np.random.default_rng(seed).normal(size=(3, classes))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    known = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    log_probs = np.log(np.take_along_axis(probabilities, known, axis=1))
    rows = TopRows(classes_BK=known, log_probs_BK=log_probs)
    found = spread(rows, classes, str)
    np.testing.assert_allclose(np.take_along_axis(found, known, axis=1), log_probs, rtol=1e-6)
    total = np.exp(found.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-5)
    codec = TopK(settings=Settings(num_classes=classes, head_size=top, temperatures=(1.0,)))
    columns = codec.encode(found)
    np.testing.assert_array_equal(columns["classes"], np.sort(known, axis=1))
    decoded = codec.decode(columns).shifted_BC.astype(np.float64)
    decoded = np.exp(decoded) / np.exp(decoded).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.take_along_axis(decoded, known, axis=1), np.exp(log_probs), rtol=2e-2, atol=1e-6
    )


def test_where_nothing_is_left_a_little_is() -> None:
    rows = TopRows(classes_BK=np.array([[1, 0]]), log_probs_BK=np.log([[0.75, 0.25]]))
    (row,) = spread(rows, 6, str).astype(np.float64)
    np.testing.assert_allclose(np.exp(row[2:]), LEAST_MASS / 4, rtol=1e-5)


def test_the_rest_stays_below_the_least_known_class() -> None:
    rows = TopRows(classes_BK=np.array([[0]]), log_probs_BK=np.log([[0.4998]]))
    (row,) = spread(rows, 2, str)
    assert row[1] < row[0]
    assert row[1] == pytest.approx(np.log(0.4998), abs=1e-6)


def test_a_tail_that_is_not_a_number_is_refused() -> None:
    rows = TopRows(classes_BK=np.array([[0]]), log_probs_BK=np.log([[0.5]]), tail_log_B=np.array([np.nan]))
    with pytest.raises(ExchangeError, match="row 0 has nan outside"):
        spread(rows, 3, lambda row: f"row {row}")
