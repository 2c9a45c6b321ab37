"""Who makes blocks ahead of a training: a thread of its process, or worker processes. Either in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from softcask.pipeline.student.prefetch import prefetched
from softcask.pipeline.student.serving import Made, Request
from softcask.storage_schemas.errors import SoftcaskError

_AHEAD = 3

Make = Callable[[Request], Made]
Answer = tuple[Request, Made]


def by_thread(make: Make, requests: Iterable[Request], *, pin: bool) -> Iterator[Answer]:
    """Answers to requests, made by one thread a few ahead."""

    def answer(request: Request) -> Answer:
        made = make(request)
        return request, made.pin_memory() if pin else made

    return prefetched(answer, requests, _AHEAD)


class Workers:
    """Processes that answer requests, started once: torch's own, each with a copy of what makes blocks.

    A request goes to whichever worker is next, and answers come in the order of the requests.

    Attributes:
        start_method: How they are started.
    """

    def __init__(self, make: Make, *, number: int, start_method: str | None, pin: bool) -> None:
        """Nothing is started yet.

        Args:
            make: What they do.
            number: How many.
            start_method: `fork`, `spawn` or `forkserver`; None: the system's own.
            pin: Whether a thread here puts what they make into pinned memory.
        """
        self.start_method = start_method or torch.multiprocessing.get_start_method()
        self._requests = _Requests()
        self._loader: DataLoader[Any] = DataLoader(
            _Answers(make),
            batch_size=None,
            sampler=self._requests,
            num_workers=number,
            collate_fn=_as_it_is,
            pin_memory=pin,
            persistent_workers=True,
            multiprocessing_context=start_method,
            # Its own, or else what a training draws at random would depend on the number of workers.
            generator=torch.Generator(),
        )

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Answers to requests, in order."""
        self._requests.iterable = requests
        for request, made in self._loader:
            if isinstance(made, SoftcaskError):
                raise made
            yield request, made


class _Requests:
    """What the workers are given: an iterable that is another in each iteration."""

    iterable: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.iterable)


class _Answers(Dataset[tuple[Request, Made | SoftcaskError]]):
    def __init__(self, make: Make) -> None:
        self._make = make

    def __getitem__(self, request: Request) -> tuple[Request, Made | SoftcaskError]:
        try:
            return request, self._make(request)
        except SoftcaskError as error:
            # As a value, or else torch would wrap it in another of its kind, message and traceback in one.
            return request, error


def _as_it_is(answer: Any) -> Any:
    return answer
