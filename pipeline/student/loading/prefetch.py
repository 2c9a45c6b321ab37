"""One thread that makes the next few things while the last one is being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetched(make: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """`map(make, items)` in order, up to `depth` results ahead of the caller; errors come in their place.

    The thread ends when the iterator is exhausted, closed or dropped.
    """
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="softcask-prefetch") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
