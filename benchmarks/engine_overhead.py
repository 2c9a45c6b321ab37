"""What the engine costs over the forward pass: CPU microseconds a row, beside a bare torch loop.

Both sides label the same rows with the same model, batches and threads. Each runs over two numbers of rows,
and the slope between them is its marginal cost a row, so that starting Ray and loading teachers do not count;
the rows are indexed beforehand. CPU time is summed over the driver and the workers; what the services of a
Ray cluster (raylet, GCS, agents) use meanwhile is shown beside it, because it is paid by the second and by
the cluster, whatever runs there.

    make bench            # the table, several rounds, medians
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import ray
import torch
from rich.console import Console
from rich.table import Table

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.pipeline.transfer_sets.indexing import index_rows
from softcask.storage_schemas import keys

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import bench_models  # noqa: E402  # beside this file, as the config's `python_path` has it

BATCH = 500
UNIT = 5_000
BUSY = 0.5
"""Share of the machine's cores that others may use before figures mean nothing."""


Cost = tuple[float, float, float]
"""CPU of driver and workers, wall, CPU of the cluster's services."""


class CpuMeter:
    """CPU seconds of this process and all it starts, including those that end while it watches; not its own.

    Work (this process and Ray's actors) is told apart from the services that a cluster keeps running (raylet,
    GCS, agents), which cost by the second and not by the row.
    """

    def __init__(self) -> None:
        """Start watching."""
        self._seen: dict[int, float] = {}
        self._before: dict[int, float] = {}
        self._workers = {os.getpid()}
        self._own = 0.0
        self._ended = threading.Event()
        self._sample()
        self._before = dict(self._seen)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, float]:
        """CPU seconds of the work, and of the services, since the start."""
        self._ended.set()
        self._thread.join()
        self._sample()
        spent = {pid: seconds - self._before.get(pid, 0.0) for pid, seconds in self._seen.items()}
        work = sum(seconds for pid, seconds in spent.items() if pid in self._workers)
        return work - self._own, sum(spent.values()) - work

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            self._sample()
        self._own = time.thread_time()

    def _sample(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
                if process.pid not in self._workers and any("_Actor" in word for word in process.cmdline()):
                    self._workers.add(process.pid)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            self._seen[process.pid] = times.user + times.system


def bare_loop(images: np.ndarray, module: torch.nn.Module) -> np.ndarray:
    """The least that anyone would write: batches in, float32 logits out, kept in memory."""
    logits_RC = np.empty((len(images), 10), dtype=np.float32)
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[first : first + BATCH]).float().mul_(1 / 255)
            logits_RC[first : first + BATCH] = module(batch).numpy()
    return logits_RC


def run_config(folder: Path, images: Path, factory: str, kind: str) -> RunConfig:
    """A run of one teacher over the rows in `images`."""
    teacher = {
        "kind": "torch",
        "name": "teacher",
        "factory": factory,
        "batch_size": BATCH,
        "preprocessing": {"scale": 1 / 255},
    }
    return RunConfig.model_validate(
        {
            "store": {"uri": str(folder), "unit_rows": UNIT},
            "transfer_set": {"kind": "arrays", "inputs": str(images)},
            "classes": {"count": 10},
            "teachers": [teacher],
            "executor": {"kind": kind, "workers": 1},
            "python_path": [str(HERE)],
        }
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="softcask-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cpu_of(work: Callable[[], object]) -> Cost:
    """Seconds of `work`: CPU, wall, CPU of a cluster's services."""
    gc.collect()
    meter, started = CpuMeter(), time.perf_counter()
    work()
    wall = time.perf_counter() - started
    cpu, services = meter.stop()
    return cpu, wall, services


def engine(images: Path, factory: str, kind: str) -> Cost:
    """Seconds of a run over rows that are indexed already."""
    with scratch() as folder:
        config = run_config(folder / "cask", images, factory, kind)
        index_only(config)
        return cpu_of(lambda: precompute(config))


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
        unit_rows=UNIT,
        index=lambda: index_rows(source, num_classes=10, max_quarantined=0),
        choose_unit_rows=lambda _: UNIT,
    )


def slope(small: Cost, large: Cost, rows: int) -> Cost:
    """Marginal microseconds a row between two runs that differ by `rows`."""
    cpu, wall, services = ((more - less) / rows * 1e6 for less, more in zip(small, large, strict=True))
    return cpu, wall, services


def one_round(factory: str, files: tuple[Path, Path], rows: tuple[int, int]) -> dict[str, Cost]:
    """Each side over both numbers of rows, one after the other, so that all meet the same weather."""
    module = getattr(bench_models, factory)()
    extra = rows[1] - rows[0]
    costs = {}
    bare = [cpu_of(lambda file=file: bare_loop(np.load(file), module)) for file in files]
    costs["bare torch loop"] = slope(bare[0], bare[1], extra)
    for kind, cluster in (("serial", nullcontext()), ("ray", ray_cluster())):
        with cluster:
            engine(
                files[0], f"bench_models:{factory}", kind
            )  # what is done once is done before the clock runs
            runs = [engine(file, f"bench_models:{factory}", kind) for file in files]
        costs[f"softcask, {kind}"] = slope(runs[0], runs[1], extra)
    return costs


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A cluster that stands before and after the runs; what it costs while they run is counted as theirs."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def report(factory: str, rounds: list[dict[str, Cost]], console: Console) -> None:
    """Medians over the rounds; the ratio is the median of each round's own ratio."""
    table = Table(title=f"{factory}: marginal cost a row, one worker, one thread, median of {len(rounds)}")
    for heading in ("", "CPU us", "CPU / bare", "range of the ratio", "services us", "wall us"):
        table.add_column(heading, justify="left" if not heading else "right")
    for side in rounds[0]:
        ratios = [costs[side][0] / costs["bare torch loop"][0] for costs in rounds]
        cpu, wall, services = (statistics.median(costs[side][part] for costs in rounds) for part in range(3))
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        ratio = f"{statistics.median(ratios):.3f}"
        table.add_row(side, f"{cpu:.1f}", ratio, spread, f"{services:.1f}", f"{wall:.1f}")
    console.print(table)


def refuse_if_busy() -> None:
    """End where others use the machine: its figures would mean nothing."""
    others = psutil.cpu_percent(interval=2.0) / 100 * (psutil.cpu_count() or 1)
    if others > BUSY:
        raise SystemExit(
            f"others use {others:.1f} cores; wait until the machine is idle, or give --even-if-busy"
        )


def main() -> None:
    """Print the tables; with `--out`, write them too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 160_000))
    parser.add_argument("--models", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--out", type=Path, help="file to write the tables to, as Markdown")
    parser.add_argument("--even-if-busy", action="store_true")
    arguments = parser.parse_args()
    if not arguments.even_if_busy:
        refuse_if_busy()
    torch.set_num_threads(1)
    console = Console(record=True, width=110)
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    )
    with scratch() as folder:
        files = tuple(_images(folder, rows) for rows in arguments.rows)
        for model in arguments.models:
            rounds = [one_round(model, files, tuple(arguments.rows)) for _ in range(arguments.rounds)]
            report(model, rounds, console)
    if arguments.out:
        command = "python " + " ".join(sys.argv)
        arguments.out.write_text(f"`{command}`\n\n```\n{console.export_text()}```\n")


def _images(folder: Path, rows: int) -> Path:
    path = folder / f"{rows}.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (rows, 28, 28), dtype=np.uint8))
    return path


if __name__ == "__main__":
    main()
