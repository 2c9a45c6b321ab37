"""Reading and writing a store beside memory itself and beside other loaders: microseconds a row.

Dense half-precision logits of three teachers over 1,000 classes, warm cache, one reader. What a table shows
is measured in one run, in turn, round after round; figures are medians. Loaders that need packages of their
own run by the Python that SOFTCASK_RIVALS_PYTHON names (an environment with datasets, litdata,
mosaicml-streaming, webdataset and torch); what is not there is said to be missing.

    make bench-store
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import store_reading_parts as parts
from measuring import Cost, command, in_rounds, machine, median, refuse_if_busy, scratch
from rival_loaders import rivals
from store_reading_parts import BATCH, Made
from tables import Goal, Report


def medians(works: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, Cost | str]:
    """Median cost of each."""
    return {name: median(costs) for name, costs in in_rounds(works, rounds).items()}


def ratio(costs: dict[str, Cost | str], of: str, to: str) -> float | None:
    """How many times the CPU of `to` that of `of` is; None where either is missing."""
    found = [next((cost for name, cost in costs.items() if name.startswith(each)), "") for each in (of, to)]
    first, second = found
    return first.cpu / second.cpu if isinstance(first, Cost) and isinstance(second, Cost) else None


def reading(report: Report, folder: Path, made: Made, rounds: int) -> list[Goal]:
    """Tables of dense reading, and what was wanted of them."""
    logits_RMC = made.halves_MRC[:, : min(made.rows, 1 << 14)].transpose(1, 0, 2)
    others = rivals(folder, logits_RMC, rounds)

    def beside(way: int) -> dict[str, Cost | str]:
        return {name: cost if isinstance(cost, str) else cost[way] for name, cost in others.items()}

    in_order = medians(parts.sequential(made), rounds) | beside(0)
    report.costs(f"In order, uncompressed, batches of {BATCH}: microseconds a row", in_order, "softcask")
    mixed = medians(parts.shuffled(made), rounds) | beside(1)
    report.costs("Shuffled: microseconds a row", mixed, "softcask, pools of units")
    drawn = medians(parts.random_batches(made), rounds)
    report.costs(f"Random batches of {BATCH} out of all rows: microseconds a row", drawn, "softcask")
    packed = medians(parts.packed(made), rounds)
    report.costs(
        "In order, blosc-zstd and CRC, every chunk unpacked anew: microseconds a row",
        packed,
        "softcask",
    )
    memory, pools = "memcpy", "softcask, pools of units"
    shuffled_memory = {"memcpy": in_order["memcpy"], pools: mixed[pools]}
    return [
        ("in order >= .6 x memcpy", ratio(in_order, memory, "softcask"), 0.6),
        ("in order with CRC each time >= .4 x memcpy", ratio(in_order, memory, "softcask, CRC"), 0.4),
        ("shuffled in pools >= .3 x memcpy", ratio(shuffled_memory, memory, pools), 0.3),
        ("random batches >= .6 x numpy gather", ratio(drawn, "numpy gather", "softcask"), 0.6),
        ("random batches >= 20 x zarr-python", ratio(drawn, "zarr-python", "softcask"), 20),
        ("blosc-zstd >= 2.5 x zarr-python", ratio(packed, "zarr-python", "softcask"), 2.5),
        ("in order >= 2 x HF datasets, its arrays", ratio(in_order, "datasets ", "softcask"), 2),
        ("shuffled >= 2 x HF datasets, its arrays", ratio(mixed, "datasets ", pools), 2),
        ("in order >= 2 x HF datasets, its Arrow lists", ratio(in_order, "datasets, arrow", "softcask"), 2),
        ("shuffled >= 2 x HF datasets, its Arrow lists", ratio(mixed, "datasets, arrow", pools), 2),
        ("in order >= 4 x litdata", ratio(in_order, "litdata", "softcask"), 4),
        ("shuffled >= 4 x litdata", ratio(mixed, "litdata", pools), 4),
        ("shuffled >= 20 x mosaicml-streaming", ratio(mixed, "mosaicml-streaming", pools), 20),
        ("shuffled >= 20 x webdataset", ratio(mixed, "webdataset", pools), 20),
    ]


def others(report: Report, folder: Path, made: Made, rounds: int, units: int) -> list[Goal]:
    """Writing, single rows, sequences, the catalog and memory, and what was wanted of them."""
    written = medians(parts.writing(folder / "written", made), rounds)
    report.costs("Writing with CRC: microseconds a row", written, "softcask")
    single = medians(parts.one_row(made), rounds)
    report.costs("One row, its chunk once verified: microseconds", single, "one row as stored")
    tokens = medians(parts.sequences(folder / "sequences"), rounds)
    report.costs(
        "Sequences as `lowrank` stores them, in order, not densified: microseconds a token",
        tokens,
        "softcask",
    )
    one, token = single["one row as stored"], tokens["softcask"]
    assert isinstance(one, Cost) and isinstance(token, Cost)
    opening, listings = parts.opening(folder / "many", units, rounds)
    report.note(
        f"A catalog of {units:,} units opens in {opening * 1e3:.1f} ms, by {listings} calls that list."
    )
    report.note(parts.memory(made))
    return [
        (
            "1.3 x tensorstore's cost / softcask's, writing >= 1",
            _scaled(ratio(written, "tensorstore", "softcask"), 1.3),
            1,
        ),
        ("20 us / one row as stored >= 1", 20 / one.wall, 1),
        (".8 M tokens a second and core", 1 / token.cpu, 0.8),
        ("100 ms / opening the catalog >= 1", 0.1 / opening, 1),
    ]


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def main() -> None:
    """Print the report; with `--out`, write it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1 << 16)
    parser.add_argument("--units", type=int, default=10_000, help="units of the catalog that is opened")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to read from")
    parser.add_argument("--out", type=Path, help="folder to write store_reading.md to")
    parser.add_argument("--force", action="store_true", help="measure though others use the machine")
    arguments = parser.parse_args()
    if not arguments.force:
        refuse_if_busy()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "zarr", "tensorstore", "pyarrow"))
    report, started = (
        Report("Reading a store", f"`{command()}`", f"{machine()}; {packages}."),
        time.monotonic(),
    )
    with scratch(arguments.scratch) as folder:
        made = parts.make(folder, arguments.rows)
        report.note(
            f"{made.rows:,} rows, {parts.TEACHERS} teachers, {parts.CLASSES:,} classes, "
            f"{made.unit_rows:,} rows a unit; medians of {arguments.rounds} rounds"
            + (", measured while others used the machine." if arguments.force else ".")
        )
        goals = reading(report, folder, made, arguments.rounds)
        goals += others(report, folder, made, arguments.rounds, arguments.units)
    report.goals(goals)
    report.note(
        'HF datasets is measured twice: as it gives arrays (`with_format("numpy")`), and in its Arrow format '
        "with the lists seen as arrays by hand. The second copies each row once, out of a map and unchecked, "
        "as memcpy would: nobody can be twice as fast in order."
    )
    print(report.text())
    print(f"{time.monotonic() - started:.0f} s")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "store_reading.md").write_text(report.text())


if __name__ == "__main__":
    main()
