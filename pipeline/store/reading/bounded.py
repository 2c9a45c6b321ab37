"""A cache that is bounded by what its values hold: what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Held(Protocol):
    """What can be kept."""

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it holds now; it may grow while it is used."""

    @property
    def maps(self) -> int:
        """Files that it has mapped."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Held)


class Bounded(Generic[K, V]):
    """Values by key. Safe to share between threads. At least one value is kept, however large."""

    def __init__(self, most_bytes: int, most_maps: int) -> None:
        """Keep nothing yet; at most so many bytes and mapped files."""
        self._most_bytes, self._most_maps = most_bytes, most_maps
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = self._maps = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes that all of them hold, as counted last."""
        return self._bytes

    def get(self, key: K) -> V | None:
        """The value, used just now, or None."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept[0]

    def keep(self, key: K, value: V) -> None:
        """Keep a value, or count anew what a kept one holds; others go if need be."""
        held = value.held_bytes
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0] is value and kept[1] == held:
                return
            self._drop(key)
            self._kept[key] = value, held
            self._bytes += held
            self._maps += value.maps
            while len(self._kept) > 1 and (self._bytes > self._most_bytes or self._maps > self._most_maps):
                self._drop(next(iter(self._kept)))

    def drop(self, key: K) -> None:
        """Forget a value."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: K) -> None:
        if key in self._kept:
            value, held = self._kept.pop(key)
            self._bytes -= held
            self._maps -= value.maps
