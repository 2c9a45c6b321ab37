"""What a run costs its driver, for a million units and a thousand actors: time, memory, and to go on.

Everything is real but the actors: the plan, the queue with its deadlines and stragglers, the receipts in a
store on a local filesystem, what the driver is sent of them, the tables they are sealed in. An actor takes no
forward pass: it commits a unit's receipt, and does not write the logits that this speaks of. Actors live in
virtual time, in which a unit takes ten seconds or so, and what they use of this process's CPU is taken off.
Not in it is what Ray itself costs a call.

Of each number of units, one process begins, and is ended without a word when half is committed; the next goes
on from the store, and seals it; a third opens it.

    make bench-scale      # 10^4, 10^5 and 10^6 units; some 6 GB of /dev/shm
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from softcask.pipeline.executors.base import ExecutorState, Failure, Pool
from softcask.pipeline.executors.capacity import Nodes
from softcask.pipeline.executors.cluster import Event
from softcask.pipeline.executors.dispatch import Dispatcher
from softcask.pipeline.executors.queue import Rules
from softcask.pipeline.label import LabelRecipe, TaskReport
from softcask.pipeline.pinning import pin_without_model
from softcask.pipeline.plan import Task
from softcask.pipeline.precompute import driver
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import newest_generation, read_contents
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.receipts import CommitRow, commit_row
from softcask.pipeline.store.unsealed import PENDING_UNITS
from softcask.storage_schemas import keys
from softcask.storage_schemas.checksum import crc32c_hex
from softcask.storage_schemas.fingerprint import digest
from softcask.storage_schemas.manifest import ObjectRecord, SegmentManifest, TeacherManifest, UnitCommit

PLACE = "/dev/shm"  # noqa: S108
ACTORS, GPUS_A_NODE = 1000, 8
UNIT_ROWS, CLASSES = 2, 10
UNIT_SECONDS = 10.0
CHECKED = 997
"""Of so many receipts one is compared with the real one."""
RAMP = 2 * ACTORS
"""Units after which every actor is at work, and the cost of a unit is looked at."""


@dataclass(slots=True)
class Meter:
    """CPU seconds of this process, but what simulated actors used."""

    actors: float = 0.0

    def driver(self) -> float:
        """So far."""
        return time.process_time() - self.actors


class Receipts:
    """Receipts of one teacher over one segment, as `UnitCommit` writes them, in a tenth of its time.

    What costs a worker nothing beside a forward pass would cost this simulation an hour.
    """

    def __init__(self, teacher: TeacherManifest, segment: SegmentManifest) -> None:
        """Take a real one apart."""
        self._teacher, self._segment, self._digest = teacher, segment, digest(teacher.fingerprint)
        self._row = commit_row(self._real(self._values(0)))
        # Values that are found again, each once, in what is made of them.
        values = [
            keys.unit_name(segment.segment, 0, 99),
            10**9 + 1,
            10**9 + 2,
            10**9 + 3,
            0.00390625,
            0.0078125,
        ]
        for number in range(3):
            values += [f"{number}-key", 10**9 + 4 + number, f"{0xABCDEF00 + number:08x}"]
        text = self._real(values).to_bytes().decode()
        for value in values:
            before, _, behind = text.partition(json.dumps(value))
            text = f"{before}%s{behind}"
        self._text = re.sub(r"crc32c:[0-9a-f]{8}(?=\"\n}\n$)", "crc32c:00000000", text)

    def of(self, index: int) -> tuple[CommitRow, bytes]:
        """What the catalog says of a unit, and its receipt."""
        values = self._values(index)
        blank = (self._text % tuple(map(json.dumps, values))).encode()
        data = blank.replace(b"crc32c:00000000", b"crc32c:" + crc32c_hex(blank).encode())
        unit, start, stop, correct, _, _, *objects = values
        records = [
            {"key": key, "size": size, "crc32c": crc}
            for key, size, crc in zip(objects[::3], objects[1::3], objects[2::3], strict=True)
        ]
        receipt = ObjectRecord.of(keys.commit(self._teacher.name, str(unit)), data)
        changed = {"unit": unit, "start": start, "stop": stop, "correct": correct, "index": index}
        row = {**self._row, **changed, "objects": records, "receipt": receipt.model_dump()}
        if index % CHECKED == 0:
            real = self._real(values)
            if (row, data) != (commit_row(real), real.to_bytes()):
                raise SystemExit(f"the simulated receipt of {unit} is not what UnitCommit writes")
        return row, data

    def _real(self, values: Sequence[Any]) -> UnitCommit:
        unit, start, stop, correct, least, most, *objects = values
        return UnitCommit(
            teacher=self._teacher.name,
            unit=str(unit),
            fingerprint=self._digest,
            start=start,
            stop=stop,
            rows=UNIT_ROWS,
            labelled=UNIT_ROWS,
            correct=correct,
            row_max_range=(least, most),
            objects=tuple(
                ObjectRecord(key=key, size=size, crc32c=crc)
                for key, size, crc in zip(objects[::3], objects[1::3], objects[2::3], strict=True)
            ),
        )

    def _values(self, index: int) -> list[Any]:
        """All that differs from unit to unit, in the order in which a receipt says it."""
        chance = random.Random(index)
        segment, name = self._segment.segment, self._teacher.name
        group = keys.logits_group(name, segment, 0)
        places = (f"{group}/logits/c/{index}/0", f"{group}/row_max/c/{index}")
        start, stop = self._segment.unit_range(index)
        correct, least, most = chance.randrange(UNIT_ROWS), chance.uniform(1, 9), chance.uniform(9, 30)
        values = [keys.unit_name(segment, 0, index), start, stop, correct, least, most]
        for key in (*places, keys.stats_part(name, segment, 0, index)):
            values += [key, chance.randrange(1 << 20, 1 << 26), f"{chance.getrandbits(32):08x}"]
        return values


def write_at_once(path: str, data: bytes) -> None:
    """A new file by three calls of the system; `StoreObjects.publish` makes twenty, to survive anything."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


class Actors:
    """Commit units as workers do, in whatever process a task is sent to."""

    def __init__(self, recipe: LabelRecipe) -> None:
        """Pin the teachers, as the first worker does."""
        self._objects = StoreObjects.at(recipe.store_uri)
        segments = read_contents(self._objects).segments
        for teacher in recipe.manifests:
            pin_without_model(self._objects, teacher, segments)
            Path(self._objects.path(keys.commits_folder(teacher.name))).mkdir(exist_ok=True)
        self._receipts = {
            (teacher.name, segment.segment): Receipts(teacher, segment)
            for teacher in recipe.manifests
            for segment in segments
        }

    def run(self, task: Task) -> bytes:
        """Commit, and send a report."""
        rows = []
        for name in task.teachers:
            row, data = self._receipts[name, task.segment].of(task.index)
            write_at_once(f"{self._objects.root}/{row['receipt']['key']}", data)
            rows.append(row)
        forward = {f"forward:{row['teacher']}": 9.0 for row in rows}
        report = TaskReport(
            task=task,
            rows={row["teacher"]: row["rows"] for row in rows},
            seconds={"read": 0.5, "encode": 0.25, "write": 0.25, **forward},
            device="simulated",
            commits=tuple(rows),
        )
        return pickle.dumps(report)


@dataclass(slots=True, eq=False)
class Actor:
    """Computes one task after another."""

    free_at: float = 0.0
    alive: bool = True


@dataclass(slots=True)
class SimulatedCluster:
    """A `Cluster` in virtual time, with as many GPUs as there are actors."""

    meter: Meter
    recipe: LabelRecipe
    die_after: int | None = None
    grows: bool = False
    clock: float = 0.0
    done: int = 0
    first: float | None = None
    marks: dict[str, float] = field(default_factory=dict)
    _actors: Actors | None = None
    _events: list[tuple[float, int, Event, Task | None]] = field(default_factory=list)
    _number: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(0))

    def now(self) -> float:
        """Seconds of virtual time."""
        return self.clock

    def nodes(self) -> Nodes:
        """As many as the actors need."""
        return {
            f"node-{number}": {"CPU": 64.0, "GPU": float(GPUS_A_NODE), "memory": 2.0**40}
            for number in range(ACTORS // GPUS_A_NODE)
        }

    def start(self, pool: Pool[Any, Any], in_flight: int) -> Actor:
        """A new actor, at work within a minute."""
        actor = Actor()
        self._tell(self._chance.uniform(1, 5), Event(worker=actor, kind="placed", value="node-0"))
        self._tell(self._chance.uniform(5, 60), Event(worker=actor, kind="ready"))
        return actor

    def submit(self, worker: Actor, unit: Any, task: Task) -> None:
        """Have an actor end a task when it comes to it."""
        if "first" not in self.marks:
            self.mark("first")
        takes = UNIT_SECONDS * self._chance.lognormvariate(0, 0.25)
        worker.free_at = max(self.clock, worker.free_at) + takes
        self._tell(worker.free_at - self.clock, Event(worker=worker, kind="done", unit=unit), task)

    def wait(self, seconds: float) -> Sequence[Event]:
        """The next thing that happens, in no time."""
        until = self.clock + seconds
        while self._events and self._events[0][0] <= until:
            self.clock, _, event, task = heapq.heappop(self._events)
            if not event.worker.alive:
                continue
            if task is None:
                return [event]
            return [self._ended(event, task)]
        self.clock = until
        return ()

    def kill(self, worker: Actor) -> None:
        """An actor that is gone tells nothing."""
        worker.alive = False

    def close(self, workers: Iterable[Actor], seconds: float) -> None:
        """There is nothing to wait for."""

    def mark(self, name: str) -> None:
        """Remember the driver's CPU and the time."""
        self.marks |= {name: self.meter.driver(), f"{name} wall": time.perf_counter()}

    def _ended(self, event: Event, task: Task) -> Event:
        began = time.process_time()
        self._actors = self._actors or Actors(self.recipe)
        sent = self._actors.run(task)
        self.meter.actors += time.process_time() - began
        self.done += 1
        if self.done == RAMP:
            self.mark("ramp")
        if self.done == self.die_after:
            self.mark("last")
            tell(self)
            os._exit(0)  # without a word to the store
        # What the driver makes of the bytes that it is sent is the driver's.
        return Event(worker=event.worker, kind="done", unit=event.unit, value=pickle.loads(sent))  # noqa: S301

    def _tell(self, after: float, event: Event, task: Task | None = None) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.clock + after, self._number, event, task))


@dataclass(slots=True)
class SimulatedExecutor:
    """The real dispatcher over a simulated cluster."""

    meter: Meter
    die_after: int | None
    name: str = "simulated"
    workers: int = 0
    cluster: SimulatedCluster | None = None
    _dispatcher: Dispatcher | None = None

    def run(self, pools: Sequence[Pool[Any, Any]]) -> Iterator[Any | Failure]:
        """See `Executor.run`."""
        recipe: Any = pools[0].recipe
        self.cluster = SimulatedCluster(self.meter, recipe, self.die_after)
        self._dispatcher = Dispatcher(pools, self.cluster, Rules(), most=ACTORS)
        yield from self._dispatcher.reports()
        self.workers = self._dispatcher.workers
        self.cluster.mark("last")

    def state(self) -> ExecutorState:
        """See `Executor.state`."""
        return self._dispatcher.state() if self._dispatcher is not None else ExecutorState()


def tell(cluster: SimulatedCluster, **more: float) -> None:
    """What this process measured, to the one that started it."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {**cluster.marks, "done": cluster.done, "actors": cluster.meter.actors, "memory": memory, **more}
        ),
        flush=True,
    )


def config_of(folder: Path) -> RunConfig:
    """One teacher over rows of one byte."""
    return RunConfig.model_validate(
        {
            "store": {"uri": str(folder / "cask"), "unit_rows": UNIT_ROWS},
            "transfer_set": {"kind": "arrays", "inputs": str(folder / "inputs.npy")},
            "classes": {"count": CLASSES},
            "teachers": [{"kind": "torch", "name": "teacher", "factory": "nothing:at_all", "num_gpus": 1}],
            "executor": {"kind": "serial"},
        }
    )


def label(folder: Path, die_after: int | None) -> None:
    """A driver's whole life, or its first half."""
    meter = Meter()
    executor = SimulatedExecutor(meter, die_after)
    driver.executor_from = lambda _: executor  # type: ignore[assignment]
    begun, begun_wall = meter.driver(), time.perf_counter()
    driver.precompute(config_of(folder))
    if executor.cluster is not None:
        ended = {
            "begun": begun,
            "begun wall": begun_wall,
            "end": meter.driver(),
            "end wall": time.perf_counter(),
        }
        tell(executor.cluster, **ended)


def index(folder: Path, units: int) -> None:
    """Have rows indexed by a run that dies before it labels: what that costs is of rows, not of units."""
    rows = np.arange(units * UNIT_ROWS, dtype=np.int64).reshape(-1, 1)
    np.save(folder / "inputs.npy", rows.view(np.uint8))
    driver._tasks = lambda *_: os._exit(0)  # type: ignore[assignment]
    driver.precompute(config_of(folder))


def look(folder: Path) -> None:
    """Open the sealed store."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begun = time.perf_counter()
    store = open_store(str(folder / "cask"))
    seconds = time.perf_counter() - begun
    generation = newest_generation(store.objects)
    tables = generation.tables if generation else ()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    sizes = {"tables": len(tables), "bytes": sum(table.size for table in tables)}
    print(json.dumps({"open": seconds, "memory": memory, "units": len(store.commits), **sizes}))


def own_process(folder: Path, *words: str) -> dict[str, float]:
    """What another process of this file tells."""
    command = [sys.executable, __file__, "--folder", str(folder), *words]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1])) if output else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one number of units.

    Attributes:
        units: How many.
        loop: Driver CPU a unit from when all actors are at work to the last report, us, of either half.
        seal: Driver CPU a unit to seal, us, and wall, s.
        restart: Seconds from a new driver's start to its first task.
        memory: Peak resident memory of either driver, bytes.
        opened: What opening the store tells.
    """

    units: int
    loop: tuple[float, float]
    seal: tuple[float, float]
    restart: float
    memory: tuple[float, float]
    opened: dict[str, float]

    @property
    def unit(self) -> float:
        """Driver CPU a unit, us: both halves' mean, and sealing."""
        return sum(self.loop) / 2 + self.seal[0]


def measure(units: int, place: str | None) -> Figures:
    """Both halves of one store's making."""
    folder = Path(tempfile.mkdtemp(prefix="softcask-scale-", dir=place))
    try:
        own_process(folder, "--index", str(units))
        # Shortly behind a pending table, so that few receipts are to be read: at most a table's, at any size.
        half = units // 2 // PENDING_UNITS * PENDING_UNITS + 100
        one = own_process(folder, "--die-after", str(half))
        two = own_process(folder, "--go-on")
        opened = own_process(folder, "--look")
    finally:
        shutil.rmtree(folder)
    if opened["units"] != units:
        raise SystemExit(f"{opened['units']} units are sealed, expected {units}")
    return Figures(
        units=units,
        loop=(
            1e6 * (one["last"] - one["ramp"]) / (one["done"] - RAMP),
            1e6 * (two["last"] - two["ramp"]) / (two["done"] - RAMP),
        ),
        seal=(1e6 * (two["end"] - two["last"]) / units, two["end wall"] - two["last wall"]),
        restart=two["first wall"] - two["begun wall"],
        memory=(one["memory"], two["memory"]),
        opened=opened,
    )


def table_of(found: Sequence[Figures]) -> Table:
    """A column a number of units."""
    table = Table("", *(f"{each.units:,} units" for each in found))

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    base = found[0].unit
    row("driver CPU a unit, us", *(f"{each.unit:.0f}" for each in found))
    row("... beside the first column's", *(f"{each.unit / base:.2f}" for each in found))
    row(
        "... of it the queue, reports, pending tables",
        *(f"{each.loop[0]:.0f} / {each.loop[1]:.0f}" for each in found),
    )
    row("... to seal at the end", *(f"{each.seal[0]:.0f}" for each in found))
    row("seal at the end, s", *(f"{each.seal[1]:.1f}" for each in found))
    row("restart with half committed, s", *(f"{each.restart:.1f}" for each in found))
    row("peak memory of a driver, MiB", *(f"{max(each.memory) / 2**20:.0f}" for each in found))
    row("tables of the catalog", *(f"{each.opened['tables']}" for each in found))
    row("catalog, bytes a unit", *(f"{each.opened['bytes'] / each.units:.0f}" for each in found))
    row("open the store, s", *(f"{each.opened['open']:.2f}" for each in found))
    row("memory of an open store, MiB", *(f"{each.opened['memory'] / 2**20:.0f}" for each in found))
    return table


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--place", default=PLACE if Path(PLACE).is_dir() else None, help="a local filesystem")
    for hidden in ("--folder", "--index", "--die-after"):
        parser.add_argument(hidden, type=Path if hidden == "--folder" else int, help=argparse.SUPPRESS)
    for hidden in ("--go-on", "--look"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is None:
        console = Console(width=120)
        busy = os.getloadavg()[0]
        found = []
        for units in options.units:
            found.append(measure(units, options.place))
            console.print(table_of(found))
        console.print(
            f"{ACTORS} simulated actors of one GPU, {UNIT_SECONDS:.0f} s a unit in virtual time. Python "
            f"{platform.python_version()}, pyarrow {pa.__version__}, {os.cpu_count()} cores, load {busy:.1f}."
        )
    elif options.index:
        index(options.folder, options.index)
    elif options.look:
        look(options.folder)
    else:
        label(options.folder, options.die_after)


if __name__ == "__main__":
    main()
