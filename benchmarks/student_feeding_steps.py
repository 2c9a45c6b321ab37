"""Training steps fed from a store, from tensors in memory, and by teachers that run beside the student."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from made_stores import Encoded, logits_like, make_store
from measuring import Cost, in_rounds, median
from tables import Goal, Report
from torch import Tensor, nn

from softcask.pipeline.student import StudentLoader, loader
from softcask.pipeline.transfer_sets.arrays import ArraysOptions
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.manifest import CodecSpec

BATCH, TEMPERATURE, PIXELS = 256, 20.0, 28
_UNIT_ROWS = 4096

Feed = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Batches of an epoch: bytes `[B, 28, 28]` and soft targets `[B, C]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Rows to train on, and the store of what teachers think of them.

    Attributes:
        inputs: Where they come from.
        inputs_N: The same in memory.
        store: The store.
        classes: Classes.
    """

    inputs: TransferSet
    inputs_N: Tensor
    store: str
    classes: int


def make_world(folder: Path, *, rows: int, classes: int, teachers: int) -> World:
    """Images of noise, and logits as classifiers have them: what is measured does not depend on either."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (rows, PIXELS, PIXELS), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    source = ArraysOptions(kind="arrays", inputs=str(folder / "images.npy"), id_prefix="row").open()
    base = Dense16().encode(logits_like(_UNIT_ROWS, classes))

    def encoded(m: int, start: int, stop: int) -> Encoded:
        at = (np.arange(start, stop) * 7 + 13 * m) % _UNIT_ROWS
        return {name: values[at] for name, values in base.items()}

    store = make_store(
        folder / "cask",
        rows=rows,
        unit_rows=_UNIT_ROWS,
        classes=classes,
        teachers=teachers,
        codec=CodecSpec(name="dense16"),
        encoded=encoded,
        table=index_rows(source, num_classes=classes, max_quarantined=0),
    )
    return World(inputs=source, inputs_N=torch.from_numpy(images), store=store, classes=classes)


def from_memory(world: World) -> Feed:
    """Tensors in memory, shuffled: one index for inputs and one for targets a batch."""
    whole = loader(world.store, temperature=TEMPERATURE, batch_size=len(world.inputs))
    batch = next(iter(whole))
    targets_NC = torch.empty_like(batch.targets)
    targets_NC[batch.rows_B] = batch.targets

    def feed() -> Iterator[tuple[Tensor, Tensor]]:
        for picked_B in torch.randperm(len(targets_NC)).split(BATCH):
            yield world.inputs_N[picked_B], targets_NC[picked_B]

    return feed


def from_store(world: World, **options: object) -> Feed:
    """Softcask's loader, started once."""
    defaults = {"inputs": world.inputs, "temperature": TEMPERATURE, "batch_size": BATCH}
    found: StudentLoader = loader(world.store, **{**defaults, **options})  # type: ignore[arg-type]
    return lambda: ((batch.inputs, batch.targets) for batch in found)


def from_teachers(world: World, teachers: list[nn.Module]) -> Feed:
    """Inputs in memory, and targets made by running the teachers on each batch."""

    def feed() -> Iterator[tuple[Tensor, Tensor]]:
        for picked_B in torch.randperm(len(world.inputs_N)).split(BATCH):
            inputs = world.inputs_N[picked_B]
            with torch.no_grad():
                pixels = as_pixels(inputs)
                members = [(teacher(pixels) / TEMPERATURE).softmax(1) for teacher in teachers]
            yield inputs, torch.stack(members).mean(0)

    return feed


def net(hidden: int, classes: int) -> nn.Module:
    """784, twice as many hidden units as said, and classes."""
    layers = [nn.Linear(PIXELS**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


def as_pixels(inputs: Tensor) -> Tensor:
    """What a net takes, of bytes."""
    return inputs.flatten(1).float().mul_(1 / 255)


class Training:
    """A student and what trains it."""

    def __init__(self, hidden: int, classes: int) -> None:
        """A fresh one, of 784-hidden-hidden-classes."""
        self._model = net(hidden, classes)
        self._optimiser = torch.optim.Adam(self._model.parameters(), fused=True)

    def steps(self, feed: Feed, count: int) -> Callable[[], None]:
        """Trains that many batches of an epoch."""

        def run() -> None:
            for inputs, targets_BC in islice(feed(), count):
                log_q_BC = (self._model(as_pixels(inputs)) / TEMPERATURE).log_softmax(1)
                kl_B = (targets_BC.xlogy(targets_BC) - targets_BC * log_q_BC).sum(1)
                self._optimiser.zero_grad(set_to_none=True)
                (TEMPERATURE**2 * kl_B.mean()).backward()
                self._optimiser.step()

        return run


def compare(
    report: Report, title: str, training: Training, feeds: dict[str, Feed], steps: int, rounds: int
) -> dict[str, Cost]:
    """Each feed's cost beside that of the first."""
    works = {name: (training.steps(feed, steps), steps * BATCH) for name, feed in feeds.items()}
    costs = {name: median(each) for name, each in in_rounds(works, rounds).items()}
    first = next(iter(costs.values()))
    rows = [
        (name, f"{cost.wall * BATCH / 1e3:.2f}", f"{1e6 / cost.wall:,.0f}", f"{first.wall / cost.wall:.3f}")
        for name, cost in costs.items()
    ]
    report.table(title, ("fed by", "ms a step", "samples/s", "of memory"), rows)
    return costs


def measured(
    report: Report, folder: Path, *, rows: int, teachers: int, workers: int, threads: int | None, rounds: int
) -> list[Goal]:
    """All tables of steps, and what was wanted of them."""
    if threads is not None:
        torch.set_num_threads(threads)
    report.note(
        f"{rows:,} rows of 784 bytes, batches of {BATCH}, torch with {torch.get_num_threads()} threads."
    )
    memory, ours, by_workers, live = (
        "tensors in memory",
        "softcask",
        f"softcask, {workers} workers",
        "teachers",
    )
    world = make_world(folder / "ten", rows=rows, classes=10, teachers=teachers)
    fed: dict[str, Feed] = {memory: from_memory(world), ours: from_store(world)}
    fed[by_workers] = from_store(world, num_workers=workers)
    goals: list[Goal] = []
    all_steps = -(-rows // BATCH)

    small = compare(report, "784-800-800-10, soft targets kept", Training(800, 10), fed, all_steps, rounds)
    goals.append(("800-800 net: step >= .95 x memory", small[memory].wall / small[ours].wall, 0.95))

    large = compare(report, "784-1600-1600-10", Training(1600, 10), fed, min(all_steps, 64), rounds)
    goals.append(_over_20_ms("1600-1600 net", large, memory, ours))

    nets = [net(1200, 10).eval() for _ in range(teachers)]
    beside = {memory: fed[memory], ours: fed[ours], live: from_teachers(world, nets)}
    title = f"784-800-800-10 beside {teachers} live teachers of 784-1200-1200-10"
    costs = compare(report, title, Training(800, 10), beside, min(all_steps, 48), rounds)
    speedup, ideal = (costs[live].wall / costs[name].wall for name in (ours, memory))
    report.note(
        f"{speedup:.2f} times as fast as with live teachers, where tensors in memory are {ideal:.2f} times."
    )
    goals.append(("speed-up over live teachers / its ideal >= .95", speedup / ideal, 0.95))

    many = make_world(folder / "thousand", rows=min(rows, 1 << 14), classes=1000, teachers=3)
    wide = {
        memory: from_memory(many),
        ours: from_store(many),
        "softcask, made when asked": from_store(many, keep_bytes=0),
    }
    steps = min(all_steps, 64)
    thousand = compare(
        report, "784-1600-1600-1000, three teachers", Training(1600, 1000), wide, steps, rounds
    )
    goals.append(_over_20_ms("1,000 classes", thousand, memory, ours))
    goals.append(_over_20_ms("1,000 classes, made when asked", thousand, memory, "softcask, made when asked"))
    return goals


def _over_20_ms(what: str, costs: dict[str, Cost], memory: str, ours: str) -> Goal:
    step = costs[memory].wall * BATCH / 1e3
    return f"{what}, a step of {step:.0f} ms: >= .98 x memory", costs[memory].wall / costs[ours].wall, 0.98
