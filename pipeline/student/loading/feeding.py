"""Who makes blocks ahead of a training: a thread of its process, or worker processes. Either in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from softcask.pipeline.student.loading.batch import StudentBatch
from softcask.pipeline.student.loading.prefetch import prefetched
from softcask.pipeline.student.loading.serving import Assembly, Made, Request, Serving
from softcask.storage_schemas.errors import SoftcaskError

_AHEAD = 3

Answer = tuple[Request, StudentBatch]


def by_thread(serving: Serving, assembly: Assembly, requests: Iterable[Request]) -> Iterator[Answer]:
    """Blocks that are asked for, made by one thread a few ahead."""
    return prefetched(lambda each: (each, assembly.block(each, serving.make(each))), requests, _AHEAD)


class Workers:
    """Processes that read for blocks, started once: torch's own, each with a copy of what makes them.

    A request goes to whichever worker is next, and answers come in the order of the requests.
    """

    def __init__(
        self, serving: Serving, assembly: Assembly, *, number: int, start_method: str | None
    ) -> None:
        """Nothing is started yet.

        Args:
            serving: What they have a copy of.
            assembly: Makes a block of what they send, here.
            number: How many.
            start_method: `fork`, `spawn` or `forkserver`; None: the system's own.
        """
        self._assembly, self._requests = assembly, _Requests()
        self._loader: DataLoader[Any] = DataLoader(
            _Answers(serving),
            batch_size=None,
            sampler=self._requests,
            num_workers=number,
            collate_fn=_as_it_is,
            persistent_workers=True,
            multiprocessing_context=start_method,
            # Its own, or else what a training draws at random would depend on the number of workers.
            generator=torch.Generator(),
        )

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Blocks that are asked for, in order, put together by a thread of this process."""
        self._requests.iterable = requests
        return prefetched(self._block, self._loader, 1)

    def _block(self, answer: tuple[Request, Made | SoftcaskError]) -> Answer:
        request, made = answer
        if isinstance(made, SoftcaskError):
            raise made
        return request, self._assembly.block(request, made)


class _Requests:
    """What the workers are given: an iterable that is another in each iteration."""

    iterable: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.iterable)


class _Answers(Dataset[tuple[Request, Made | SoftcaskError]]):
    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def __getitem__(self, request: Request) -> tuple[Request, Made | SoftcaskError]:
        try:
            return request, self._serving.make(request)
        except SoftcaskError as error:
            # As a value, or else torch would wrap it in another of its kind, message and traceback in one.
            return request, error


def _as_it_is(answer: Any) -> Any:
    return answer
