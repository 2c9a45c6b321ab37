"""What the engine is measured beside: the same rows, model and batches, run by each in its own way."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import bench_models
import numpy as np
import ray
import torch
from cpu_meter import Seconds, seconds_of
from measuring import scratch

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas import keys

BATCH = 500
UNIT, LARGE_UNIT = 5_000, 20_000
"""Rows a unit; of some millions, softcask would take 32,768 if it were not told."""
CLASSES = 10

Batches = Iterator[np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows to label.

    Attributes:
        count: How many.
        file: All of them, in one `.npy`.
        parts: The same in several, a unit each, for those who read files whole.
    """

    count: int
    file: Path
    parts: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to label.

    Attributes:
        name: For the table.
        run: Labels rows with the model of this name, and says what it took.
        on_ray: Whether it needs a cluster.
    """

    name: str
    run: Callable[[Rows, str], Seconds]
    on_ray: bool = False


def make_rows(folder: Path, count: int) -> Rows:
    """Random images of bytes."""
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    file, parts = folder / f"{count}.npy", folder / f"{count}"
    np.save(file, images)
    parts.mkdir()
    for first in range(0, count, UNIT):
        np.save(parts / f"{first:09d}.npy", images[first : first + UNIT])
    return Rows(count=count, file=file, parts=parts)


def logits_of(module: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The forward pass, as short as it can be written."""
    return module(torch.from_numpy(images).float().mul_(1 / 255)).numpy()


def bare_loop(rows: Rows, model: str) -> Seconds:
    """The least that anyone would write: batches in, float32 logits out, kept in memory."""
    module = getattr(bench_models, model)()

    def work() -> None:
        images = np.load(rows.file)
        _label(module, (images[first : first + BATCH] for first in range(0, len(images), BATCH)), len(images))

    return seconds_of(work)


def prefetching_loop(rows: Rows, model: str) -> Seconds:
    """The same, with a thread that reads four batches ahead, as ours does."""
    module = getattr(bench_models, model)()
    return seconds_of(lambda: _label(module, _read_ahead(rows.file), rows.count))


def script(rows: Rows, model: str) -> Seconds:
    """What most projects have: a loop that saves each batch by `torch.save`, logits in half precision."""
    module = getattr(bench_models, model)()

    def work() -> None:
        with scratch() as folder, torch.inference_mode():
            images = np.load(rows.file, mmap_mode="c")
            for first in range(0, len(images), BATCH):
                logits_BC = module(torch.from_numpy(images[first : first + BATCH]).float().mul_(1 / 255))
                kept = {"ids": torch.arange(first, first + len(logits_BC)), "logits": logits_BC.half()}
                torch.save(kept, folder / f"{first:09d}.pt")

    return seconds_of(work)


def ray_data(rows: Rows, model: str) -> Seconds:
    """Ray Data: files of rows -> `map_batches` in one actor of one core -> `write_parquet`."""

    def work() -> None:
        with scratch() as folder:
            data = ray.data.read_numpy([str(part) for part in sorted(rows.parts.iterdir())])
            data = data.map_batches(
                _Labels,
                batch_size=BATCH,
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=1),
                fn_constructor_args=(str(HERE), model),
            )
            data.write_parquet(str(folder / "logits"))

    return seconds_of(work)


def softcask(kind: str, *, workers: int = 1, unit: int = UNIT) -> Callable[[Rows, str], Seconds]:
    """`precompute` over rows that are indexed already."""

    def run(rows: Rows, model: str) -> Seconds:
        with scratch() as folder:
            config = run_config(folder / "cask", rows.file, model, kind, workers, unit)
            index_only(config)
            return seconds_of(lambda: precompute(config))

    return run


HERE = Path(__file__).parent
BARE = Side(name="bare torch loop", run=bare_loop)
OURS = (
    Side(name="softcask, serial", run=softcask("serial")),
    Side(name="softcask, ray", run=softcask("ray"), on_ray=True),
)
OTHERS = (
    Side(name="loop that reads ahead", run=prefetching_loop),
    Side(name="script with torch.save", run=script),
    Side(name="Ray Data, write_parquet", run=ray_data, on_ray=True),
)
LARGE_UNITS = Side(
    name=f"softcask, ray, units of {LARGE_UNIT:,}", run=softcask("ray", unit=LARGE_UNIT), on_ray=True
)
TWO = Side(name="softcask, ray, 2 actors", run=softcask("ray", workers=2), on_ray=True)


def run_config(
    folder: Path, images: Path, model: str, kind: str, workers: int = 1, unit: int = UNIT
) -> RunConfig:
    """A run of one teacher over the rows in `images`."""
    teacher = {
        "kind": "torch",
        "name": "teacher",
        "factory": f"bench_models:{model}",
        "batch_size": BATCH,
        "preprocessing": {"scale": 1 / 255},
    }
    return RunConfig.model_validate(
        {
            "store": {"uri": str(folder), "unit_rows": unit},
            "transfer_set": {"kind": "arrays", "inputs": str(images)},
            "classes": {"count": CLASSES},
            "teachers": [teacher],
            "executor": {"kind": kind, "workers": workers},
            "python_path": [str(HERE)],
        }
    )


def index_only(config: RunConfig) -> None:
    """Index the rows as `precompute` would, so that it finds them indexed."""
    objects, source = StoreObjects.at(config.store.uri), config.transfer_set.open()
    prepare_root(objects, config.classes.class_names)
    prepare_segment(
        objects,
        keys.segment_name(0),
        source=source.describe(),
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        unit_rows=config.store.unit_rows,
        index=lambda: index_rows(source, num_classes=CLASSES, max_quarantined=0),
        choose_unit_rows=lambda _: UNIT,  # not asked
    )


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster that stands before and after the runs; what it costs while they run is counted as theirs."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


class _Labels:
    """A teacher as an actor of Ray Data has it."""

    def __init__(self, folder: str, model: str) -> None:
        sys.path.insert(0, folder)
        import bench_models

        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._module = getattr(bench_models, model)()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            return {"logits": logits_of(self._module, batch["data"])}


def _label(module: torch.nn.Module, batches: Batches, count: int) -> np.ndarray:
    logits_RC, first = np.empty((count, CLASSES), dtype=np.float32), 0
    with torch.inference_mode():
        for batch in batches:
            logits_RC[first : first + len(batch)] = logits_of(module, batch)
            first += len(batch)
    return logits_RC


def _read_ahead(file: Path) -> Batches:
    queue: Queue[np.ndarray | None] = Queue(4)

    def read() -> None:
        images = np.load(file, mmap_mode="r")
        for first in range(0, len(images), BATCH):
            queue.put(np.array(images[first : first + BATCH]))
        queue.put(None)

    thread = threading.Thread(target=read)
    thread.start()
    while (batch := queue.get()) is not None:
        yield batch
    thread.join()
