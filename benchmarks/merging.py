"""How many rows a second a generalist and its specialists are merged at on one core, beside other rules.

OMP_NUM_THREADS=1 python benchmarks/merging.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import in_rounds, machine, median, refuse_if_busy
from numpy.typing import NDArray
from tables import Report

from softcask.pipeline.targets.specialists import kl, within_sets
from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.members import Members

GOAL = 4_000
"""Rows a CPU second, at C = 1000 and M = 10."""


def distributions(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Softmax of logits with a standard deviation of 3."""
    powers = np.exp(random.normal(size=(rows, columns)) * 3)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def members(rows: int, classes: int, count: int, *, overlapping: bool, generalist: bool) -> Members[Any]:
    """Specialists that know nine tenths of the classes between them, or a tenth each at random."""
    random = np.random.default_rng(0)
    if overlapping:
        sets = ClassSets.of(classes, [random.permutation(classes)[: classes // 10] for _ in range(count)])
    else:
        sets = ClassSets.of(classes, np.array_split(random.permutation(classes)[: classes * 9 // 10], count))
    return Members(
        sets=sets,
        specialists=tuple(distributions(random, rows, len(known) + 1) for known in sets.sets),
        generalist=distributions(random, rows, classes) if generalist else None,
    )


def as_tensors(of: Members[Any]) -> Members[Any]:
    """The same on the CPU, in torch."""
    return Members(
        sets=of.sets,
        specialists=tuple(torch.from_numpy(said) for said in of.specialists),
        generalist=None if of.generalist is None else torch.from_numpy(of.generalist),
    )


def works(rows: int, classes: int, count: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is measured, by name."""
    disjoint = members(rows, classes, count, overlapping=False, generalist=True)
    torch.set_num_threads(1)
    cases = {
        "KL": disjoint,
        "KL, sets overlap": members(rows, classes, count, overlapping=True, generalist=True),
        "KL, no generalist": members(rows, classes, count, overlapping=False, generalist=False),
        "KL, no generalist, sets overlap": members(rows, classes, count, overlapping=True, generalist=False),
        "KL, torch": as_tensors(disjoint),
    }
    found: dict[str, tuple[Callable[[], object], int]] = {
        name: (lambda case=case: kl.merge(case), rows)  # type: ignore[misc]
        for name, case in cases.items()
    }
    found["arithmetic within the set"] = (lambda: within_sets.arithmetic(disjoint), rows)
    found["geometric within the set"] = (lambda: within_sets.geometric(disjoint), rows)
    return found


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--specialists", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--force", action="store_true", help="measure though others use the machine")
    arguments = parser.parse_args()
    if not arguments.force:
        refuse_if_busy()
    costs = in_rounds(works(arguments.rows, arguments.classes, arguments.specialists), arguments.rounds)
    report = Report("Merging specialists", f"{machine()}, one thread.")
    report.note(
        f"{arguments.rows} rows at once, C = {arguments.classes}, M = {arguments.specialists}, medians of "
        f"{arguments.rounds} rounds; float32 in, float64 between, float32 out"
        + ("; measured while others used the machine." if arguments.force else ".")
    )
    medians = {name: median(of) for name, of in costs.items()}
    report.table(
        "Rows a second",
        ("", "rows a CPU second", "CPU us a row", "wall us a row"),
        [
            (name, f"{1e6 / cost.cpu:,.0f}", f"{cost.cpu:.1f}", f"{cost.wall:.1f}")
            for name, cost in medians.items()
        ],
    )
    report.goals([(f"KL, rows a CPU second, at least {GOAL:,}", 1e6 / medians["KL"].cpu, GOAL)])
    print(report.text())


if __name__ == "__main__":
    main()
