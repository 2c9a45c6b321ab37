"""`make chaos`: break everything, at random but seeded times, and show what it cost.

Real processes: a cluster of three nodes on this machine, `softcask precompute` as its driver, and a store
that is compared with an undisturbed one, object by object, after every run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos_faults import Fault, all_faults, allowed
from chaos_world import UNITS, Run, World, account, small_disk
from tests.s3_server import S3, SECRET, serving

_ABOUT = f"""# Chaos

`make chaos` (seed {{seed}}): {{blows}} faults in {{minutes:.0f}} minutes on {{cores}} cores, Ray {{ray}}.

Each store has {UNITS} units of 16 rows and three teachers in two pools, labelled on three emulated nodes of
one core by real processes, and is then compared with one that nothing happened to, object by object, `runs/`
aside.
"""


@dataclass(slots=True)
class Line:
    """A line of the table."""

    name: str
    runs: int = 0
    blows: int = 0
    lost: int = 0
    doubled: int = 0
    differing: list[str] = field(default_factory=list)
    redone: int = 0
    allowed: int = 0
    seconds: list[float] = field(default_factory=list)
    resumed: int = 0


def main() -> None:
    """Run the kinds of fault, one after another."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--scale", type=float, default=1.0, help="how many runs of each kind: 1 is 220 faults"
    )
    options.add_argument("--only", default="", help="kinds whose name holds this")
    options.add_argument("--out", type=Path, default=None)
    told = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    lines, table, began = [], "", time.time()
    with serving() as served, small_disk(folder / "disk", 24) as disk:
        server = _bucket(served, folder)
        world = World(folder / "world", random.Random(told.seed))
        places = {"disk": folder / "stores", "small": disk or folder / "stores", "s3": server.uri}
        try:
            faults = [each for each in all_faults(server, told.scale) if told.only in each.name]
            faults = [each for each in faults if each.place != "small" or disk is not None]
            for place in {str(places[each.place]) for each in faults}:
                world.undisturbed(f"{place}/undisturbed")
            world.start_cluster()
            for fault in faults:
                lines.append(_line(world, fault, str(places[fault.place])))
                table = _table(lines, told.seed, time.time() - began)
                if told.out is not None:
                    told.out.write_text(table)
        finally:
            world.stop_cluster()
    shutil.rmtree(folder)
    print(table)
    if any(line.differing or line.lost or line.doubled or line.redone > line.allowed for line in lines):
        sys.exit("a store differs from the undisturbed one, or more was done again than was in flight")


def _line(world: World, fault: Fault, place: str) -> Line:
    line = Line(fault.name)
    for number in range(fault.runs):
        shutil.rmtree(world.folder / "orders", ignore_errors=True)
        (world.folder / "orders").mkdir()
        store = f"{place}/{fault.name.replace(' ', '-').replace(',', '')}-{number}"
        run = Run(world, store)
        began = time.time()
        fault.go(run, fault.blows)
        found = account(store, f"{place}/undisturbed")
        line.runs += 1
        line.blows += len(run.blows)
        line.lost += found.lost
        line.doubled += found.doubled
        line.differing += found.differing
        line.redone += run.redone()
        line.allowed += allowed(run)
        line.seconds += run.recoveries()
        line.resumed += run.drivers - 1
        told = f"{len(run.blows)} blows, {run.redone()} done again, at most {allowed(run)}"
        print(f"  {fault.name} {number}: {time.time() - began:.0f} s, {told}, {found}", flush=True)
        if fault.place == "small":
            shutil.rmtree(store)
    return line


def _bucket(served: S3, folder: Path) -> S3:
    """An empty bucket, and the environment that leads there, as the tests have it."""
    os.environ |= {
        "AWS_ENDPOINT_URL": served.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }
    here = S3(served.endpoint, served.moto, served.proxy, "chaos")
    here.direct("PUT", "/chaos")
    return here


def _row(line: Line) -> str:
    seconds = sorted(line.seconds)
    recovery = f"{statistics.median(seconds):.1f} / {seconds[-1]:.1f}" if seconds else "-"
    same = f"{len(line.differing)} objects differ" if line.differing else "all equal"
    return (
        f"| {line.name} | {line.runs} | {line.blows} | {same} | {line.lost} | {line.doubled} | {line.redone} "
        f"(<= {line.allowed}) | {line.resumed} | {recovery} |"
    )


def _table(lines: list[Line], seed: int, seconds: float) -> str:
    import ray

    blows, minutes = sum(line.blows for line in lines), seconds / 60
    columns = (
        *("fault", "stores", "faults", "stores compared", "rows lost", "rows doubled"),
        *("units done again (in flight then)", "runs called again", "seconds to recover, median / most"),
    )
    return "\n".join(
        [
            _ABOUT.format(seed=seed, blows=blows, minutes=minutes, cores=os.cpu_count(), ray=ray.__version__),
            f"| {' | '.join(columns)} |",
            f"|{' --- |' * len(columns)}",
            *map(_row, lines),
            "",
        ]
    )


if __name__ == "__main__":
    main()
