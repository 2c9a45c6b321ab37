"""What the engine costs over the forward pass, beside a bare torch loop and beside other ways to label.

All label the same rows with the same model, batches and threads. Each side runs over two numbers of rows: the
slope between them is its marginal cost a row, so that starting Ray and loading teachers do not count; what
is left at no rows is the fixed cost of a run. The rows are indexed beforehand. CPU time is summed over the
driver and the workers. What the services of a Ray cluster (raylet, GCS, agents) use meanwhile is shown
beside it: it is paid by the second and by the cluster, whatever runs there.

A machine's speed drifts by more than what is to be seen here. So the bare loop runs before and after each
side, and a side's ratio is to the mean of these two.

    make bench            # the engine alone
    make bench-engine     # and beside a loop that reads ahead, torch.save, Ray Data; and on two actors
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
import measuring
from cpu_meter import Seconds
from engine_sides import BARE, LARGE_UNITS, OTHERS, OURS, TWO, Rows, Side, make_rows, ray_cluster

MOST_OVER_BARE = {"mlp": 1.05, "conv": 1.03}
LEAST_OVER_RAY_DATA = 1.5
MOST_FIXED = 5.0
LEAST_SPEEDUP = 1.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One side in one round.

    Attributes:
        row: Marginal microseconds a row.
        ratio: Its marginal CPU over that of the bare loop, as it ran just before and just after.
        fixed: Seconds of a run of no rows.
    """

    row: Seconds
    ratio: float
    fixed: Seconds


def one_round(model: str, sides: Sequence[Side], rows: tuple[Rows, Rows]) -> dict[str, Sample]:
    """Every side over both numbers of rows, the bare loop between them."""
    small, large = rows
    extra = large.count - small.count
    start = BARE.run(small, model)
    bare = [BARE.run(large, model)]
    samples = {}
    for side in sides:
        with ray_cluster() if side.on_ray else nullcontext():
            side.run(small, model)  # what is done once is done before the clock runs
            less, more = side.run(small, model), side.run(large, model)
        bare.append(BARE.run(large, model))
        around = (bare[-2].cpu + bare[-1].cpu) / 2 - start.cpu
        slope = (more - less) / extra
        samples[side.name] = Sample(
            row=slope / 1e-6, ratio=slope.cpu * extra / around, fixed=less - slope / (1 / small.count)
        )
    slopes = [(each - start) / extra for each in bare]
    middle = sorted(slopes, key=lambda slope: slope.cpu)[len(slopes) // 2]
    return {
        BARE.name: Sample(row=middle / 1e-6, ratio=1.0, fixed=start - middle / (1 / small.count))
    } | samples


def report(model: str, rounds: Sequence[dict[str, Sample]], console: Console) -> None:
    """Medians over the rounds; the ratio is the median of each round's own."""
    title = f"{model}: marginal cost a row, one thread a worker, median of {len(rounds)}"
    table = Table(title=title)
    for heading in (
        "",
        "CPU us",
        "CPU / bare",
        "its range",
        "wall us",
        "services us",
        "fixed CPU s",
        "fixed wall s",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for side in rounds[0]:
        samples = [each[side] for each in rounds]
        ratios = [sample.ratio for sample in samples]
        table.add_row(
            side,
            f"{_median([sample.row.cpu for sample in samples]):.1f}",
            f"{_median(ratios):.3f}",
            f"{min(ratios):.3f} to {max(ratios):.3f}",
            f"{_median([sample.row.wall for sample in samples]):.1f}",
            f"{_median([sample.row.services for sample in samples]):.1f}",
            f"{_median([sample.fixed.cpu for sample in samples]):.1f}",
            f"{_median([sample.fixed.wall for sample in samples]):.1f}",
        )
    console.print(table)
    for line in goals(model, rounds):
        console.print(line)


def goals(model: str, rounds: Sequence[dict[str, Sample]]) -> list[str]:
    """What was asked for, what was found, and whether that holds."""
    ours, data, two = OURS[-1].name, OTHERS[-1].name, TWO.name

    def median(side: str, part: str) -> float:
        return _median([float(getattr(each[side].row, part)) for each in rounds])

    ratio = _median([each[ours].ratio for each in rounds])
    fixed = _median([each[ours].fixed.cpu for each in rounds])
    found = [
        _goal(f"CPU over the bare loop, {ours}", ratio, MOST_OVER_BARE[model], at_most=True),
        _goal(f"fixed CPU seconds of a run, {ours}", fixed, MOST_FIXED, at_most=True),
    ]
    if data in rounds[0]:
        found.append(
            _goal("CPU of Ray Data over ours", median(data, "cpu") / median(ours, "cpu"), LEAST_OVER_RAY_DATA)
        )
    if two in rounds[0]:
        found.append(
            _goal("speed of two actors over one", median(ours, "wall") / median(two, "wall"), LEAST_SPEEDUP)
        )
    return found


def _goal(what: str, found: float, bound: float, *, at_most: bool = False) -> str:
    holds, sign = (found <= bound, "<=") if at_most else (found >= bound, ">=")
    return f"  {'holds' if holds else 'MISSED'}: {what}: {found:.3f}, {sign} {bound:g} wanted"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Print the tables; with `--out`, write them too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 120_000))
    parser.add_argument("--models", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--beside", action="store_true", help="measure others and two actors, too")
    parser.add_argument("--out", type=Path, help="file to write the tables to, as Markdown")
    parser.add_argument("--even-if-busy", action="store_true")
    arguments = parser.parse_args()
    if not arguments.even_if_busy:
        measuring.refuse_if_busy()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # Ray Data's
    sides = (OTHERS[0], OTHERS[1], *OURS, LARGE_UNITS, TWO, OTHERS[2]) if arguments.beside else OURS
    console = Console(record=True, width=130)
    console.print(f"{measuring.machine()}, torch {torch.__version__}")
    with measuring.scratch() as folder:
        small, large = (make_rows(folder, count) for count in arguments.rows)
        for model in arguments.models:
            rounds = [one_round(model, sides, (small, large)) for _ in range(arguments.rounds)]
            report(model, rounds, console)
    if arguments.out:
        arguments.out.write_text(f"`{measuring.command()}`\n\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
