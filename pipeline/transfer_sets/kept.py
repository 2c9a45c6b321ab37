"""What a source keeps in memory between reads: bounded, shared by its threads, left behind when pickled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lazy(Generic[T]):
    """A value made when it is first asked for, by one thread only, and left behind when pickled."""

    __slots__ = ("_lock", "_make", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = Lock()
        self._value: T | None = None

    def get(self) -> T:
        """The value, made now if it was not yet."""
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the way to make the value, never as the value."""
        return Lazy, (self._make,)


class Kept(Generic[K, T]):
    """Values by key, of which those used longest ago go first; the last one stays, however large."""

    __slots__ = ("_lock", "_most_bytes", "_values")

    def __init__(self, most_bytes: int) -> None:
        """Keep nothing yet, and later values of at most so many bytes together."""
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._values: OrderedDict[K, tuple[T, int]] = OrderedDict()

    def get(self, key: K, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of `key`, made now if it is not kept; two threads may make it at once."""
        with self._lock:
            if (kept := self._values.get(key)) is not None:
                self._values.move_to_end(key)
                return kept[0]
        value = make()
        with self._lock:
            self._values[key] = value, size(value)
            while len(self._values) > 1 and sum(held for _, held in self._values.values()) > self._most_bytes:
                self._values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled empty."""
        return Kept, (self._most_bytes,)
