"""Batches for a student: rows of one or several stores with their inputs, epoch by epoch.

    from softcask import student

    loader = student.loader("out/cask", inputs=dataset, ids="sample_ids", temperature=4.0, batch_size=256)
    for epoch in range(10):
        for batch in loader:
            ...

One order of all rows follows from seed and epoch. All processes take turns in it, and what a loader remembers
is how many rows were consumed: a training may go on with other numbers of processes and workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, Literal, Unpack

import numpy as np
import torch

from softcask.pipeline.store.reading.reader import CACHE_BYTES
from softcask.pipeline.student.loading.batch import StudentBatch
from softcask.pipeline.student.loading.feeding import Answer, Workers, by_thread
from softcask.pipeline.student.loading.mixing import checked, mixed, order_of
from softcask.pipeline.student.loading.order import global_batches, share_of, steps
from softcask.pipeline.student.loading.parts import Part, PartOptions, StoreLike, part
from softcask.pipeline.student.loading.place import place_of
from softcask.pipeline.student.loading.position import Position
from softcask.pipeline.student.loading.serving import BLOCK_BYTES, Assembly, Request, Serving
from softcask.pipeline.student.loading.target_rows import TargetRows
from softcask.pipeline.student.losses.base import Needs
from softcask.storage_schemas.errors import ConfigError, StudentError

KEEP_BYTES = 1 << 30
"""Targets of all rows are made once and kept if they take no more by default: 60,000 rows of 10 classes take
2.4 MB, 1.28 million rows of 1000 classes 5.1 GB."""
WINDOW_BYTES = CACHE_BYTES
"""What is stored of the rows that are mixed with each other, by default: what a reader keeps unpacked."""

Temperature = float | Callable[[int], float]
"""T of the soft targets: a number, or a function of the epoch's."""
StartMethod = Literal["fork", "spawn", "forkserver"]


def loader(
    store: StoreLike | Sequence[Part],
    *,
    needs: Needs = "probabilities",
    temperature: Temperature = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    epochs: int | None = 1,
    mix: Sequence[float] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    start_method: StartMethod | None = None,
    pin_memory: bool | None = None,
    keep_bytes: int = KEEP_BYTES,
    window_bytes: int = WINDOW_BYTES,
    **options: Unpack[PartOptions],
) -> StudentLoader:
    """A loader over a store with its inputs, or over several of them mixed.

    Args:
        store: A path or URL, an open store, teachers of one that are combined already; or parts to be mixed.
        needs: What comes as `targets`: soft targets at T ("probabilities"), the teachers' mean "logits", one
            teacher's targets as they are stored ("compressed"), or nothing ("labels").
        temperature: T of soft targets, or a function of the epoch's number that gives it.
        batch_size: Rows a batch and process. The last batch of an epoch has what is left.
        seed: Decides, with the epoch's number, the order of rows.
        epochs: How many epochs one iteration goes through; None: it has no end.
        mix: What of a batch comes from each part, in proportion; None: in proportion to their rows, so that
            each row comes once an epoch.
        rank: Which process this is; None asks torch.distributed or the environment, as torchrun sets it.
        world_size: How many there are.
        num_workers: Processes that read ahead; 0: a thread of this one does, which suits inputs that lie in
            arrays. Batches are the same either way.
        start_method: How workers are started; None: the system's way.
        pin_memory: Whether batches lie in pinned memory; None: where there is CUDA.
        keep_bytes: Bytes up to which the targets of all rows are made once and kept, by this process alone.
        window_bytes: Where they are not kept: bytes, as stored, of the rows that are mixed with each other,
            so that what is fetched and unpacked is used while it is there. It decides the order then, too.
        **options: What `part` takes: inputs, ids, teachers, select and so on; not with parts.

    Raises:
        MisalignedRows: Inputs and store do not match.
        TransferSetError: Inputs that cannot be used, or no label where labels alone are learned from.
        ConfigError: Teachers, temperature, rows or numbers that make no sense.
        StudentError: A rank that is none of the processes, or fewer rows than processes.
        StoreError: The store cannot be read, T is not among those that its logits were kept for, or nothing
            is left of it.
    """
    if isinstance(store, Sequence) and not isinstance(store, str):
        if options:
            raise ConfigError(f"{next(iter(options))} belongs to a part: give it to student.part")
        parts = list(store)
    else:
        parts = [part(store, **options)]
    return StudentLoader(
        parts,
        needs=needs,
        temperature=temperature,
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
        mix=mix,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
        start_method=start_method,
        pin_memory=pin_memory,
        keep_bytes=keep_bytes,
        window_bytes=window_bytes,
    )


class StudentLoader:
    """Batches of a student's rows; see `loader`, which makes one.

    An iteration begins where the last one ended, at the begin of an epoch; or where `set_epoch` or
    `load_state_dict` put it. One that was left early is not gone on with, but begun anew.

    Attributes:
        parts: What rows are of.
        batch_size: Rows a batch and process.
        rank: Which process this is.
        world_size: How many there are.
        views: Numbers of the views that are learned from: epoch e takes `views[e % len(views)]`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        needs: Needs,
        temperature: Temperature,
        batch_size: int,
        seed: int,
        epochs: int | None,
        mix: Sequence[float] | None,
        rank: int | None,
        world_size: int | None,
        num_workers: int,
        start_method: StartMethod | None,
        pin_memory: bool | None,
        keep_bytes: int,
        window_bytes: int,
    ) -> None:
        """See `loader`."""
        _check_numbers(batch_size=batch_size, epochs=epochs, seed=seed, num_workers=num_workers)
        self.parts, self.batch_size = checked(parts, needs), batch_size
        self.rank, self.world_size = place_of(rank, world_size)
        self.views = self.parts[0].views
        self._seed, self._epochs, self._mix = seed, epochs, mix
        self._temperature = temperature
        targets = [TargetRows(each.targets, each.rows.rows_N, needs) for each in self.parts]
        self._serving = Serving(self.parts, targets)
        self._check_temperature(0)
        both = list(zip(self.parts, targets, strict=True))
        keep = sum(len(each) * of.row_bytes for each, of in both) <= keep_bytes
        for each in targets:
            each.kept = keep
        self._order = mixed([order_of(each, of, None if keep else window_bytes) for each, of in both], mix)
        if len(self._order) < self.world_size:
            raise StudentError(
                f"{len(self._order)} rows for {self.world_size} processes; expected at least one each"
            )
        pin = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._assembly = Assembly(self._serving, pin=pin)
        self._workers: Workers | None = None
        if num_workers and not self._serving.reads_nothing:
            for shared in self.parts:
                shared.share()
            self._workers = Workers(
                self._serving, self._assembly, number=num_workers, start_method=start_method
            )
        self._start = self._position = Position()
        self._iteration = 0

    def __len__(self) -> int:
        """Batches of one iteration from the begin of an epoch.

        Raises:
            TypeError: It has no end.
        """
        if self._epochs is None:
            raise TypeError("a loader of epochs=None has no length")
        return self._epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch; each process has as many."""
        return steps(len(self._order), self.batch_size, self.world_size)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of an epoch, of all processes."""
        return len(self._order)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration begins with."""
        return self._start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin with this epoch; within it, where a loaded state says so.

        Raises:
            ConfigError: It is below 0.
        """
        _check_numbers(epoch=epoch)
        if epoch != self._start.epoch:
            self._start = self._position = Position(epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, after the batch that was handed out last: JSON-able, the same in all processes."""
        return self._position.normal(len(self._order)).state(self._identity())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration begin where a state says, however many processes and workers there were.

        Raises:
            CheckpointError: It is no such state, or one of other rows, another seed or another order; the
                message lists every difference.
        """
        self._start = self._position = Position.of(state, self._identity(), len(self._order))
        self._iteration += 1

    def __iter__(self) -> Iterator[StudentBatch]:
        """Batches from where the iteration begins to the end of an epoch; see `epochs`."""
        self._iteration += 1
        return self._iterate(self._iteration, self._start)

    def _iterate(self, iteration: int, start: Position) -> Iterator[StudentBatch]:
        self._position = start
        for request, block in self._answers(self._requests(start)):
            bounds = pairwise(accumulate(request.sizes, initial=0))
            for (first, last), done in zip(bounds, request.done, strict=True):
                if iteration != self._iteration:
                    raise StudentError(
                        "another iteration of this loader has begun, and it is in one place at a time; make "
                        "a second loader"
                    )
                self._position = Position(epoch=request.epoch, rows=done)
                if done == len(self._order) and self._is_last(request.epoch):
                    # Now: a loop that counts batches never asks for the one that is not there.
                    self._start = self._position.normal(done)
                yield block.cut(first, last)
        self._start = self._position = self._position.normal(len(self._order))

    def _answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        if self._workers is None:
            return by_thread(self._serving, self._assembly, requests)
        return self._workers.answers(requests)

    def _requests(self, position: Position) -> Iterator[Request]:
        """What is asked for, from a position on."""
        epoch, done = position.epoch, position.rows
        while True:
            yield from self._epoch_requests(epoch, done)
            if self._is_last(epoch):
                return
            epoch, done = epoch + 1, 0

    def _is_last(self, epoch: int) -> bool:
        """Whether an iteration ends with this epoch."""
        return self._epochs is not None and (epoch + 1) % self._epochs == 0

    def _epoch_requests(self, epoch: int, done: int) -> Iterator[Request]:
        order, temperature = self._order.of(self._seed, epoch), self._check_temperature(epoch)
        rows, world = len(order), self.world_size
        spans = global_batches(rows, done, self.batch_size, world)
        for block in _growing(spans, self._steps_a_block()):
            own = [share_of(*span, self.rank, world) for span in block]
            yield Request(
                epoch=epoch,
                picked_R=np.concatenate([order[first:last] for first, last in own]),
                sizes=tuple(last - first for first, last in own),
                done=tuple(stop for _, stop in block),
                temperature=temperature,
                view=self._view_of(epoch),
            )

    def _view_of(self, epoch: int) -> int:
        return self.views[epoch % len(self.views)]

    def _steps_a_block(self) -> int:
        row_bytes = self._serving.row_bytes
        return 1 if row_bytes is None else max(1, BLOCK_BYTES // (self.batch_size * max(row_bytes, 1)))

    def _check_temperature(self, epoch: int) -> float:
        """T of an epoch.

        Raises:
            ConfigError: It is not finite or not above 0.
            StoreError: A teacher's logits were not kept for it.
        """
        temperature = self._temperature
        found = temperature(epoch) if callable(temperature) else temperature
        if not isinstance(found, int | float):
            raise ConfigError(f"temperature is {found!r}; expected a number, or a function of the epoch")
        for targets in self._serving.targets:
            targets.check(found)
        return float(found)

    def _identity(self) -> dict[str, Any]:
        """What decides which rows come in which order."""
        data = {str(number): each.digest for number, each in enumerate(self.parts)}
        views = {"views": list(self.views)} if self.views != (0,) else {}
        return {
            "seed": self._seed,
            "rows": len(self._order),
            "data": data,
            "order": self._order.describe(),
            **views,
        }


def _growing(spans: Iterator[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    """Blocks of one batch, two, four and so on up to `most`: the first does not wait for many."""
    size = 1
    while block := list(islice(spans, size)):
        yield block
        size = min(2 * size, most)


def _check_numbers(**numbers: int | None) -> None:
    least = {"batch_size": 1, "epochs": 1}
    for name, number in numbers.items():
        if number is None and name == "epochs":
            continue
        if not isinstance(number, int) or number < least.get(name, 0):
            raise ConfigError(f"{name} is {number!r}; expected a whole number from {least.get(name, 0)}")
