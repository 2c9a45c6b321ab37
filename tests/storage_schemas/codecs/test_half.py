from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.half import below_maximum, from_half, row_blocks, to_half

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = ALL_HALVES[np.isfinite(ALL_HALVES)]


def test_every_half_comes_back_as_numpy_has_it() -> None:
    assert from_half(FINITE).tobytes() == FINITE.astype(np.float32).tobytes()


def test_numbers_at_and_about_every_half_and_every_tie_round_as_numpy_rounds_them() -> None:
    halves = np.unique(FINITE[FINITE <= 0].astype(np.float32))
    at = np.concatenate([halves, (halves[1:] + halves[:-1]) / 2])
    values = np.concatenate([at, np.nextafter(at, np.float32(0)), np.nextafter(at[1:], np.float32(-65504))])
    assert to_half(values).tobytes() == values.astype(np.float16).tobytes()
    assert to_half(np.float32([[0.0, -0.0], [-1.0, -65504.0]])).tolist() == [[0.0, 0.0], [-1.0, -65504.0]]


@given(values=hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-65504, 0, width=32)))
def test_numbers_round_as_numpy_rounds_them(values: NDArray[np.float32]) -> None:
    assert to_half(values).tobytes() == values.astype(np.float16).tobytes()


@pytest.mark.parametrize(
    ("rows", "classes"), [(0, 5), (1, 1), (7, 1 << 20), (300_000, 3), (5, 0), (1000, 1000)]
)
def test_blocks_of_rows_cover_all_rows_once_and_are_small(rows: int, classes: int) -> None:
    blocks = list(row_blocks(rows, classes))
    assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
    assert all(
        block.stop - block.start == 1 or (block.stop - block.start) * classes <= 1 << 17 for block in blocks
    )


def test_a_range_beyond_half_precision_is_cut() -> None:
    largest = np.finfo(np.float32).max
    shifted_BC, row_max_B = below_maximum(np.float32([[largest, -largest, 0], [1, 3, 2]]))
    assert shifted_BC.tolist() == [[0, -65504, -65504], [-2, 0, -1]]
    assert row_max_B.tolist() == [largest, 3]


def test_no_zero_is_negative() -> None:
    shifted_BC, row_max_B = below_maximum(np.float32([[0.0, -0.0, -1], [-0.0, 0.0, -1], [-0.0, -0.0, -1]]))
    assert not np.signbit(shifted_BC[:, :2]).any()
    assert not np.signbit(row_max_B).any()
