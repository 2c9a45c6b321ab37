"""Ids as Arrow keeps them: millions of Python's strings would take three times the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ArrowStrings(Sequence[str]):
    """Strings that are made to Python's as they are asked for.

    Attributes:
        column: An array or a chunked one, of strings, without null.
    """

    column: pa.Array | pa.ChunkedArray

    def __len__(self) -> int:
        """How many."""
        return len(self.column)

    @overload
    def __getitem__(self, rows: int) -> str: ...
    @overload
    def __getitem__(self, rows: slice) -> list[str]: ...
    def __getitem__(self, rows: int | slice) -> str | list[str]:
        """Some of them."""
        if isinstance(rows, int):
            return str(self.column[rows].as_py())
        found: list[str] = self.column[rows].to_pylist()
        return found
