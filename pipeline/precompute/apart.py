"""Drivers that cooperate begin at different places, or each would do what the other is just doing.

Where a driver begins is no part of what is stored: units belong to the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from softcask.pipeline.executors.base import Pool

T = TypeVar("T")

_GOLDEN = 0.6180339887498949
"""Multiples of it, but for their whole part, keep far apart however many there are."""


def apart(pools: Sequence[Pool[Any, T]], rank: int) -> list[Pool[Any, T]]:
    """The same pools for the driver that came as the `rank`-th, from 0, of those at work."""
    place = rank * _GOLDEN % 1
    return [replace(pool, tasks=BegunAt(pool.tasks, int(place * len(pool.tasks)))) for pool in pools]


class BegunAt(Sequence[T]):
    """A sequence gone through from some place on, its beginning last; nothing is copied."""

    def __init__(self, items: Sequence[T], first: int) -> None:
        """Begin at `items[first]`."""
        self._items, self._first = items, first

    def __len__(self) -> int:
        """As many as there are."""
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        """The item at a place, or those of a slice."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._items[(place + self._first) % len(self)]

    def __iter__(self) -> Iterator[T]:
        """From the first place on."""
        return (self[place] for place in range(len(self)))
