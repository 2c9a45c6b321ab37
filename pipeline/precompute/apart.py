"""Drivers that cooperate go through the units apart, or each would do what the other is just doing.

The first goes forwards from the beginning, the second backwards from the end, until they meet; a further pair
goes both ways from the middle, and so on. Who has come to where another began finds its units committed and
passes them over. Order is no part of what is stored: units belong to the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from softcask.pipeline.executors.base import Pool

T = TypeVar("T")


def apart(pools: Sequence[Pool[Any, T]], rank: int) -> list[Pool[Any, T]]:
    """The same pools for the driver that came as the `rank`-th, from 0, of those at work."""
    place, backwards = _halving(rank // 2), rank % 2 == 1
    return [
        replace(pool, tasks=BegunAt(pool.tasks, int(place * len(pool.tasks)), backwards=backwards))
        for pool in pools
    ]


def _halving(number: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, ...: each as far from those before as may be (van der Corput's sequence)."""
    place, half = 0.0, 0.5
    while number:
        place, number, half = place + half * (number % 2), number // 2, half / 2
    return place


class BegunAt(Sequence[T]):
    """A sequence gone through from some place on, and from its other end to there; nothing is copied."""

    def __init__(self, items: Sequence[T], first: int, *, backwards: bool = False) -> None:
        """Begin at `items[first]`; or backwards, with the one before."""
        self._items = items
        self._first, self._step = (first - 1, -1) if backwards else (first, 1)

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
        return self._items[(self._first + self._step * (place % len(self))) % len(self)]

    def __iter__(self) -> Iterator[T]:
        """From the first place on."""
        return (self[place] for place in range(len(self)))
