"""The kinds of fault: each runs one store through several blows, and says how many there were."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from chaos_world import IN_FLIGHT, TEACHERS, UNITS, Blow, Run, send
from tests.s3_server import S3, answering, landing, landing_unanswered, resetting, truncating

STEPS = ("before", "written", "linked", "after")
PARTS = ("logits", "stats", "commits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind.

    Attributes:
        name: For the table.
        go: Runs one store to its end, with about so many blows.
        runs: Stores.
        blows: Blows a store.
        place: Where the store is: `disk`, `small` (a disk that can be filled) or `s3`.
    """

    name: str
    go: Callable[[Run, int], None]
    runs: int
    blows: int
    place: str = "disk"


def kill_actors(run: Run, blows: int) -> None:
    """SIGKILL to one worker after another."""
    run.start_driver()
    for _ in range(blows):
        if not run.pause_until_under_way():
            break
        at_work = run.world.workers()
        if at_work:
            victim = run.world.random.choice(at_work)
            run.strike(lambda victim=victim: _kill(victim))  # type: ignore[misc]
    run.finish()


def kill_nodes(run: Run, blows: int) -> None:
    """SIGKILL to a raylet with all that ran on its node; another node joins a little later."""
    run.start_driver()
    for _ in range(blows):
        if not run.pause_until_under_way():
            break
        node = run.world.random.choice(run.world.nodes)
        run.strike(lambda node=node: _kill_node(run, node))  # type: ignore[misc]
        time.sleep(run.world.random.uniform(0.0, 2.0))
        run.world.add_node()
    run.finish()


def stop_nodes(run: Run, blows: int) -> None:
    """SIGSTOP to a node until it is taken for dead, and then SIGCONT: what it holds may still be written."""
    run.start_driver()
    for _ in range(blows):
        if not run.pause_until_under_way():
            break
        node = run.world.random.choice(run.world.nodes)
        processes = run.world.processes_of(node)
        run.strike(lambda node=node: _stop_node(run, node))  # type: ignore[misc]
        run.world.nodes.remove(node)
        run.world.cluster.worker_nodes.discard(node)
        run.world.add_node()
        time.sleep(run.world.random.uniform(3.0, 8.0))
        send(processes, signal.SIGCONT)
        run.world.stopped += processes
    run.finish()


def kill_drivers(run: Run, blows: int) -> None:
    """SIGKILL to the driver; the same command is called again."""
    run.start_driver()
    for _ in range(blows):
        if not run.pause_until_under_way():
            break
        assert run.driver is not None
        workers = len(run.world.workers())
        driver = run.driver
        run.strike(lambda driver=driver, workers=workers: (driver.kill(), workers)[1])  # type: ignore[misc]
        driver.wait()
        run.start_driver()
    run.finish(most=blows + 4)


def kill_writers(run: Run, blows: int) -> None:
    """SIGKILL between two steps of a commit: before and after an object, and inside its publication."""
    random, folder = run.world.random, Path(os.environ["SOFTCASK_CHAOS"])
    names = [str(teacher["name"]) for teacher in TEACHERS]
    units = random.sample(range(UNITS), blows)
    steps = [(part, step) for part in PARTS for step in STEPS]
    random.shuffle(steps)
    orders = [[random.choice(names), unit, *steps[place % len(steps)]] for place, unit in enumerate(units)]
    (folder / "orders.json").write_text(json.dumps(orders))
    run.start_driver()
    run.wait()
    # Told by those who were killed, just before.
    for entry in run.world.begun():
        if entry.teacher == "!":
            before = frozenset(each.pid for each in run.world.begun() if each.when <= entry.when)
            run.blows.append(Blow(when=entry.when, workers=1, pids=before))
    if run.codes[-1] != 0:
        run.start_driver()
        run.finish()
    run.seconds = 0.0


def kill_heads(run: Run, blows: int) -> None:
    """SIGKILL to the GCS, which Ray does not survive without an external Redis; a new cluster goes on."""
    for _ in range(blows):
        run.start_driver()
        if not run.pause_until_under_way():
            break
        workers = len(run.world.workers())
        run.strike(lambda workers=workers: _kill_gcs(run, workers))  # type: ignore[misc]
        code = run.wait()
        assert code == 2 and "the head of the Ray cluster" in run.said(), (code, run.said())
        run.world.stop_cluster()
        run.world.start_cluster()
    run.start_driver()
    run.finish()


def fill_disk(run: Run, blows: int) -> None:
    """The disk is full for a while: shorter than retries last, or until the driver has ended."""
    disk = Path(run.store).parent
    run.start_driver()
    for _ in range(blows):
        if not run.pause_until_under_way():
            break
        filler = disk / "filler"
        run.strike(lambda filler=filler: _fill(run, filler))  # type: ignore[misc]
        if run.world.random.random() < 0.5:
            time.sleep(run.world.random.uniform(0.2, 2.0))
            filler.unlink()
            continue
        code = run.wait()
        filler.unlink()
        assert code == 2 and "no space left" in run.said(), (code, run.said())
        run.start_driver()
    run.finish(most=blows + 4)


def storage_faults(server: S3) -> Callable[[Run, int], None]:
    """The store's server answers 503 or 500, breaks off, hangs up, or does as asked and says it did not."""
    acts = [
        ("PUT", answering(503, "SlowDown")),
        ("PUT", answering(500, "InternalError")),
        ("PUT", landing(500, "InternalError")),
        ("PUT", landing_unanswered),
        ("PUT", resetting),
        ("GET", answering(503, "SlowDown")),
        ("GET", truncating(10)),
        ("GET", resetting),
    ]

    def go(run: Run, blows: int) -> None:
        run.start_driver()
        for _ in range(blows):
            if not run.pause_until_under_way():
                break
            method, act = run.world.random.choice(acts)
            run.strike(lambda method=method, act=act: (server.fault(act, method=method), 0)[1])  # type: ignore[misc]
        run.finish()
        server.proxy.faults.clear()

    return go


def all_faults(server: S3, scale: float) -> list[Fault]:
    """Every kind; `scale` 1 is about 220 blows."""

    def runs(count: int) -> int:
        return max(1, round(count * scale))

    return [
        Fault(name="SIGKILL of an actor", go=kill_actors, runs=runs(6), blows=10),
        Fault(
            name="SIGKILL of the writer, between steps of a commit", go=kill_writers, runs=runs(4), blows=16
        ),
        Fault(name="SIGKILL of a raylet with its node", go=kill_nodes, runs=runs(5), blows=5),
        Fault(name="SIGSTOP of a node, later SIGCONT", go=stop_nodes, runs=runs(3), blows=3),
        Fault(name="SIGKILL of the driver", go=kill_drivers, runs=runs(4), blows=5),
        Fault(name="disk full", go=fill_disk, runs=runs(3), blows=3, place="small"),
        Fault(name="SIGKILL of the GCS", go=kill_heads, runs=runs(2), blows=1),
        Fault(
            name="storage faults of an S3 server",
            go=storage_faults(server),
            runs=runs(2),
            blows=15,
            place="s3",
        ),
    ]


def allowed(run: Run) -> int:
    """Units that may have been begun twice: what was in flight at the blows."""
    return sum(blow.workers for blow in run.blows) * IN_FLIGHT


def _kill(process: psutil.Process) -> int:
    send([process], signal.SIGKILL)
    return 1


def _kill_node(run: Run, node: Any) -> int:
    workers = len(run.world.workers(node))
    run.world.kill_node(node)
    return workers


def _stop_node(run: Run, node: Any) -> int:
    workers = len(run.world.workers(node))
    send(run.world.processes_of(node), signal.SIGSTOP)
    return workers


def _kill_gcs(run: Run, workers: int) -> int:
    for info in run.world.cluster.head_node.all_processes["gcs_server"]:
        info.process.kill()
    return workers


def _fill(run: Run, filler: Path) -> int:
    """What cannot be written waits for room; it is computed again where the run has ended before."""
    workers = len(run.world.workers())
    block = bytes(1 << 16)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(block):
            pass
    return workers
