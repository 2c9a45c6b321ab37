"""Units as numbers: sets of a million of them are sorted int64 arrays, 8 bytes each, and not names.

The code of a unit is the digits of its name: 4 of the segment, 4 of the view, 8 of the index. So codes are in
the order of the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.storage_schemas import keys

UnitCodes = NDArray[np.int64]
"""Codes of units, rising, each once."""

UNITS_A_VIEW = 10**8
UNITS_A_SEGMENT = 10**12

_NAME = r"^s[0-9]{4}-v[0-9]{4}-[0-9]{8}$"


def first_code(segment: str, view: int) -> int:
    """Code of unit 0 of a segment and view; that of unit i is i more."""
    return keys.segment_number(segment) * UNITS_A_SEGMENT + view * UNITS_A_VIEW


def code_of(unit: str) -> int:
    """Code of a unit's name.

    Raises:
        StoreError: It is not a unit's name.
    """
    segment, view, index = keys.parse_unit(unit)
    return first_code(segment, view) + index


def unit_of(code: int) -> str:
    """Name of the unit of a code."""
    segment, rest = divmod(int(code), UNITS_A_SEGMENT)
    view, index = divmod(rest, UNITS_A_VIEW)
    return keys.unit_name(keys.segment_name(segment), view, index)


def views_of(codes: UnitCodes) -> NDArray[np.int64]:
    """Number of the view of each unit."""
    return codes % UNITS_A_SEGMENT // UNITS_A_VIEW


def codes_of(names: Iterable[str]) -> UnitCodes:
    """Codes of those among the names that are units' names."""
    found = pa.array(names if isinstance(names, Sequence) else list(names), pa.string())
    return np.unique(codes_of_column(found.filter(pc.match_substring_regex(found, _NAME))))


def codes_of_column(units: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Codes `[n]` of a column of n units' names, in its order.

    Raises:
        ValueError: One is not made of digits where a unit's name is.
    """
    code_n = np.zeros(len(units), dtype=np.int64)
    for first, stop, worth in ((1, 5, UNITS_A_SEGMENT), (7, 11, UNITS_A_VIEW), (12, 20, 1)):
        digits = pc.cast(pc.utf8_slice_codeunits(units, first, stop), pa.int64())
        code_n += digits.to_numpy(zero_copy_only=False) * worth
    return code_n


def indexes_in(codes: UnitCodes, first: int, units: int) -> NDArray[np.int64]:
    """Places of those units among `units` consecutive ones from the code `first`."""
    begin, end = np.searchsorted(codes, [first, first + units])
    return codes[begin:end] - first
