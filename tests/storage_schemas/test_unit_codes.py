from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.storage_schemas import keys, unit_codes
from softcask.storage_schemas.errors import StoreError

UNITS = st.tuples(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 10**8 - 1))


def name_of(unit: tuple[int, int, int]) -> str:
    return "s{:04d}-v{:04d}-{:08d}".format(*unit)


@given(units=st.lists(UNITS, max_size=20))
def test_codes_and_names_of_units_say_the_same_in_the_same_order(units: list[tuple[int, int, int]]) -> None:
    codes = unit_codes.codes_of([name_of(unit) for unit in units])
    assert codes.dtype == np.int64
    assert [unit_codes.unit_of(code) for code in codes] == [name_of(unit) for unit in sorted(set(units))]
    assert [keys.parse_unit(unit_codes.unit_of(code)) for code in codes] == [
        (f"s{segment:04d}", view, index) for segment, view, index in sorted(set(units))
    ]
    assert [unit_codes.code_of(name_of(unit)) for unit in sorted(set(units))] == codes.tolist()


@pytest.mark.parametrize(
    "stray",
    ["", "s0000", "notes", "._s0000-v0000-00000000", "s0000-v0000-0000000x", "s0000-v0000-00000000\n"],
)
def test_names_that_are_no_units_have_no_codes(stray: str) -> None:
    assert unit_codes.codes_of([stray, "s0001-v0002-00000003"]).tolist() == [1_0002_00000003]
    with pytest.raises(StoreError, match="is not the name of a unit"):
        unit_codes.code_of(stray)


def test_a_column_keeps_its_order_and_its_repetitions() -> None:
    column = pa.chunked_array([["s0000-v0000-00000002"], ["s0000-v0000-00000001", "s0000-v0000-00000002"]])
    assert unit_codes.codes_of_column(column).tolist() == [2, 1, 2]


@given(units=st.sets(st.integers(0, 40)), first=st.integers(0, 40), count=st.integers(0, 10))
def test_a_range_of_units_is_cut_out_of_many(units: set[int], first: int, count: int) -> None:
    codes = np.array(sorted(units), dtype=np.int64)
    expected = [unit - first for unit in sorted(units) if first <= unit < first + count]
    assert unit_codes.indexes_in(codes, first, count).tolist() == expected
