"""Rows of text: a batch is a numpy array of `StringDType`, which behaves as one of numbers does.

A row that could not be read is "" as one of numbers is zeros, `inputs_B[positions]` and pickling work, and
`inputs_B.tolist()` is what a tokenizer takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TEXT: np.dtype[Any] = np.dtypes.StringDType()
"""Element type of rows of text, of any length: `str` on the way out, UTF-8 inside."""


def is_text(dtype: np.dtype[Any]) -> bool:
    """Whether rows of this type are text."""
    return dtype.kind == "T"


def dtype_name(dtype: np.dtype[Any]) -> str:
    """How a store names a type of rows: `text`, or as numpy does (`uint8`)."""
    return "text" if is_text(dtype) else str(dtype)
