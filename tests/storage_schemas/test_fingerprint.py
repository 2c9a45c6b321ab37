from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.fingerprint import canonical, differences, digest

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
KEYS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def reversed_order(value: Any) -> Any:
    """The same value with every mapping's keys in the opposite order, and lists as tuples."""
    if isinstance(value, dict):
        return {key: reversed_order(value[key]) for key in reversed(list(value))}
    return tuple(map(reversed_order, value)) if isinstance(value, list) else value


@given(value=VALUES)
def test_the_digest_does_not_depend_on_the_order_of_keys_nor_on_tuples(value: Any) -> None:
    assert digest(value) == digest(reversed_order(value))


@given(value=VALUES, other=VALUES)
def test_values_differ_field_by_field_exactly_where_their_digests_differ(value: Any, other: Any) -> None:
    for left, right in ((value, other), (value, value), ({"a": value}, {"a": [other]})):
        assert bool(differences(canonical(left), canonical(right))) == (digest(left) != digest(right))


@pytest.mark.parametrize(("left", "right"), [([1], [True]), ([1], [1.0]), (0.0, -0.0), ([[0]], [[False]])])
def test_values_that_python_calls_equal_differ_where_their_digests_do(left: Any, right: Any) -> None:
    assert left == right
    assert digest(left) != digest(right)
    assert differences({"a": left}, {"a": right}) != []


def test_the_digest_is_the_hash_of_sorted_compact_json() -> None:
    text = '{"a":[1,2.5,null],"ü":{"b":"x","c":true}}'
    value = {"ü": {"c": True, "b": "x"}, "a": (1, 2.5, None)}
    assert digest(value) == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_whole_numbers_truths_and_floats_are_told_apart() -> None:
    assert len({digest(1), digest(1.0), digest(True), digest("1"), digest([1])}) == 5


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": {"b": math.nan}}, "a.b is nan"),
        ({"a": [0.0, math.inf]}, r"a\[1\] is inf"),
        (-math.inf, "value is -inf"),
        ({"a": {1: 2}}, "a has the key 1"),
        ({"a": {1, 2}}, "a is"),
        ({"a": b"bytes"}, "a is"),
        ({"a": np.float32(1)}, "a is"),
        ({"a": object()}, "a is"),
        ({"path": "caf\udce9"}, "path is"),
        ({"a": {"\udce9": 1}}, "a has the key"),
    ],
)
def test_a_value_without_a_stable_form_is_refused_with_its_place(value: Any, where: str) -> None:
    with pytest.raises(StoreError, match=where):
        digest(value)


def test_differences_are_told_leaf_by_leaf_with_both_values() -> None:
    found = {"same": 1, "weights": {"sha256": "aa", "size": 3}, "only here": None, "order": [1, 2]}
    expected = {"same": 1, "weights": {"sha256": "bb", "size": 3}, "only there": "x", "order": [2, 1]}
    assert differences(found, expected) == [
        "only here: found null, expected (absent)",
        'only there: found (absent), expected "x"',
        "order: found [1, 2], expected [2, 1]",
        'weights.sha256: found "aa", expected "bb"',
    ]


def test_a_long_value_is_shown_by_its_beginning() -> None:
    (line,) = differences({"names": ["x" * 10] * 50}, {"names": []})
    assert len(line) < 200
    assert "(700 characters)" in line  # 50 x ('"' + 10 + '"') + 49 x ', ' + '[]'
