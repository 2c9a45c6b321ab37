"""What `make chaos` breaks: a cluster of three nodes on this machine, a store, its driver; and an account."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.driver import precompute
from softcask.pipeline.store.access.local_objects import TEMPORARY
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import newest_generation, read_commits
from softcask.pipeline.store.receipts import committed_units

UNITS, UNIT_ROWS, CLASSES = 120, 16, 5
IN_FLIGHT = 2
PLUGIN = Path(__file__).parent / "chaos_plugin"
TEACHERS = [
    {"kind": "chaos", "name": "a", "seed": 0, "batch_size": 16, "seconds": 0.04},
    {"kind": "chaos", "name": "b", "seed": 1, "batch_size": 16, "seconds": 0.04},
    {"kind": "chaos", "name": "c", "seed": 2, "batch_size": 8, "seconds": 0.03},
]
GROUPS = (("a", "b"), ("c",))
# A node that does not answer is dead after some two seconds, instead of Ray's fifteen and more.
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "24",
}


@dataclass(slots=True, kw_only=True)
class Begun:
    """A line of the teachers' log: when which process began a unit; or ended itself, as it was told."""

    when: float
    pid: int
    teacher: str
    unit: int


@dataclass(slots=True, kw_only=True)
class Blow:
    """One fault.

    Attributes:
        when: Unix time.
        workers: Workers that it took.
        pids: Workers that were known before.
    """

    when: float
    workers: int
    pids: frozenset[int]


@dataclass(slots=True)
class World:
    """Everything; a context manager, of which nothing is left."""

    folder: Path
    random: random.Random
    nodes: list[Any] = field(default_factory=list)
    cluster: Any = None
    stopped: list[psutil.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Rows, and the environment that the cluster's processes inherit."""
        (self.folder / "orders").mkdir(parents=True)
        rows = UNITS * UNIT_ROWS
        generator = np.random.default_rng(0)
        inputs = generator.normal(size=(rows, 6, 4)).astype(np.float32)
        inputs[:, 0, 0] = np.arange(rows)
        np.save(self.folder / "inputs.npy", inputs)
        np.save(self.folder / "labels.npy", generator.integers(0, CLASSES, rows))
        os.environ |= ENVIRONMENT
        os.environ["RAY_TMPDIR"] = str(self.folder / "ray")
        os.environ["SOFTCASK_CHAOS"] = str(self.folder / "orders")
        path = [str(PLUGIN), str(PLUGIN.parents[1]), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        if str(PLUGIN) not in sys.path:
            sys.path.insert(0, str(PLUGIN))

    def config(self, store: str, **executor: Any) -> dict[str, Any]:
        """A run file as tables."""
        return {
            "store": {"uri": store, "unit_rows": UNIT_ROWS},
            "transfer_set": {
                "kind": "arrays",
                "inputs": str(self.folder / "inputs.npy"),
                "labels": str(self.folder / "labels.npy"),
            },
            "classes": {"count": CLASSES},
            "teachers": TEACHERS,
            "executor": executor,
        }

    def undisturbed(self, store: str) -> None:
        """The store as it should be, by the serial executor in this process."""
        quick = [{**teacher, "seconds": 0.0} for teacher in TEACHERS]
        config = self.config(store, kind="serial") | {"teachers": quick}
        precompute(RunConfig.model_validate(config))
        shutil.rmtree(self.folder / "orders")
        (self.folder / "orders").mkdir()

    def start_cluster(self) -> None:
        """A head and two nodes, one core each."""
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        head = {**small, "_system_config": HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(**small) for _ in range(2)]

    def add_node(self) -> None:
        """A node joins."""
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20))

    def stop_cluster(self) -> None:
        """End it, whatever state it is in."""
        for process in self.stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.stopped.clear()
        if self.cluster is None:
            return
        for node in [*self.nodes, self.cluster.head_node]:
            self.kill_node(node, forget=False)
        self.cluster.worker_nodes.clear()
        self.nodes, self.cluster = [], None

    def processes_of(self, node: Any) -> list[psutil.Process]:
        """All that a node started, and what these started."""
        found = []
        for infos in node.all_processes.values():
            for info in infos:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(info.process.pid)
                    found += [process, *process.children(recursive=True)]
        return found

    def kill_node(self, node: Any, *, forget: bool = True) -> None:
        """SIGKILL to a node's raylet first, and then to all that ran there."""
        for process in self.processes_of(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if forget:
            self.nodes.remove(node)
            self.cluster.worker_nodes.discard(node)

    def workers(self, node: Any = None) -> list[psutil.Process]:
        """Actors' processes, of a node or of all."""
        nodes = [node] if node is not None else [*self.nodes, self.cluster.head_node]
        return [process for each in nodes for process in self.processes_of(each) if _is_actor(process)]

    def begun(self) -> list[Begun]:
        """What the teachers wrote down since the last run began."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "orders" / "begun.log").read_text().splitlines()
            parts = [line.split() for line in lines if line.count(" ") == 3]
            return [
                Begun(when=float(when), pid=int(pid), teacher=teacher, unit=int(unit))
                for when, pid, teacher, unit in parts
            ]
        return []


def _is_actor(process: psutil.Process) -> bool:
    try:
        return any("_Actor" in part for part in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


@dataclass(slots=True)
class Run:
    """One store, from nothing to the end, through as many drivers as it takes."""

    world: World
    store: str
    blows: list[Blow] = field(default_factory=list)
    drivers: int = 0
    driver: subprocess.Popen[bytes] | None = None
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    _began: float = field(default_factory=time.time)

    def start_driver(self, **executor: Any) -> None:
        """`softcask precompute`, as anyone would call it."""
        options = {
            "kind": "ray",
            "address": self.world.cluster.address,
            "in_flight": IN_FLIGHT,
            "straggling": 1000.0,  # units run twice on purpose would be counted as work done again
            "start_timeout": 60.0,
            **executor,
        }
        file = self.world.folder / "run.toml"
        file.write_text(_toml(self.world.config(self.store, **options)))
        self.drivers += 1
        with (self.world.folder / "driver.log").open("ab") as log:
            command = [sys.executable, "-m", "softcask.jobs.cli", "precompute", str(file), "--json"]
            self.driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)

    @property
    def ended(self) -> bool:
        """Whether its driver has."""
        return self.driver is None or self.driver.poll() is not None

    def wait(self, seconds: float = 240.0) -> int:
        """Until the driver ends; its exit code."""
        assert self.driver is not None
        self.codes.append(self.driver.wait(seconds))
        return self.codes[-1]

    def finish(self, most: int = 6) -> None:
        """Run the same command until it ends well, as its user would."""
        while self.wait() != 0:
            if self.drivers >= most:
                raise AssertionError(f"no end after {self.drivers} drivers: {self.said()}")
            self.start_driver()
        self.seconds = time.time() - self._began

    def said(self) -> str:
        """The last that drivers wrote."""
        return (self.world.folder / "driver.log").read_bytes().decode(errors="replace")[-3000:]

    def pause_until_under_way(self) -> bool:
        """Until units are being labelled, and then for a random while; False where the driver has ended."""
        seen = len(self.world.begun())
        while len(self.world.begun()) == seen:
            if self.ended:
                return False
            time.sleep(0.05)
        time.sleep(self.world.random.uniform(0.0, 1.0))
        return not self.ended

    def strike(self, act: Callable[[], int]) -> None:
        """Do something bad that takes so many workers, and write it down."""
        pids = frozenset(entry.pid for entry in self.world.begun())
        when = time.time()
        self.blows.append(Blow(when=when, workers=act(), pids=pids))

    def recoveries(self) -> list[float]:
        """Seconds from each blow until a process that was not there before labels."""
        begun = [entry for entry in self.world.begun() if entry.teacher != "!"]
        found = []
        for blow in self.blows:
            after = [entry.when for entry in begun if entry.when > blow.when and entry.pid not in blow.pids]
            found += [min(after) - blow.when] if after else []
        return found

    def redone(self) -> int:
        """Units that were begun more than once, counted once a time."""
        begun = [entry for entry in self.world.begun() if entry.teacher != "!"]
        counts = Counter(entry.teacher for entry in begun)
        return sum(max(0, max(counts[name] for name in group) - UNITS) for group in GROUPS)


@dataclass(slots=True, kw_only=True)
class Account:
    """What became of a store."""

    differing: list[str]
    lost: int
    doubled: int


def account(store: str, expected: str) -> Account:
    """Compare object by object, `runs/` aside; of a catalog that was sealed more than once, what it says.

    A file that a killed writer was about to name is no object: nothing reads it, and `gc` takes it.
    """
    found, wanted = StoreObjects.at(store), StoreObjects.at(expected)
    keys = [
        {key for key in each.all_keys() if not (key.startswith("runs/") or f"/{TEMPORARY}" in key)}
        for each in (found, wanted)
    ]
    once = newest_generation(found).generation == 1  # type: ignore[union-attr]
    if not once:
        keys = [{key for key in each if not key.startswith("catalog/")} for each in keys]
    digests = [_digests(each, keys[0] & keys[1]) for each in (found, wanted)]
    same = [key for key in digests[0] if digests[0][key] == digests[1][key]]
    differing = sorted((keys[0] | keys[1]) - set(same))
    catalogs = [_catalog(each) for each in (found, wanted)]
    if catalogs[0] != catalogs[1]:
        differing.append("what the catalog says")
    names = [teacher["name"] for teacher in TEACHERS]
    committed = sum(len(committed_units(found, str(name))) for name in names)
    return Account(
        differing=differing,
        lost=(UNITS * len(names) - len(set(catalogs[0]))) * UNIT_ROWS,
        doubled=(max(committed, len(catalogs[0])) - len(set(catalogs[0]))) * UNIT_ROWS,
    )


def _digests(objects: StoreObjects, keys: set[str]) -> dict[str, Any]:
    """Objects' bytes; of a server the MD5 that a listing has as ETag: thousands of reads take minutes."""
    if objects.local is not None:
        return {key: objects.read(key) for key in keys}
    return {key: told["ETag"] for key, told in objects.listing().items() if key in keys}


def _catalog(objects: StoreObjects) -> list[str]:
    newest = newest_generation(objects)
    assert newest is not None
    return sorted(
        json.dumps(row, sort_keys=True, default=str) for row in read_commits(objects, newest).to_pylist()
    )


def _toml(tables: dict[str, Any]) -> str:
    """Enough TOML for a run file; JSON's values are TOML's."""
    lines = []
    for name, table in tables.items():
        for each in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in each.items()]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A filesystem that can be filled; None where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S607


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    """A signal to all of them that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
