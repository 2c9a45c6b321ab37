"""The student's loader beside other loaders, over the same rows, shuffled: in one process and by workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import store_reading_parts as parts
from measuring import Cost, in_rounds, median
from rival_loaders import rivals
from store_reading_parts import BATCH, TEACHERS
from tables import Goal, Report

from softcask.pipeline.student import StudentLoader, loader

OURS, ANEW = "softcask", "softcask, nothing kept"
_WANTED = (
    ("datasets ", 2),
    ("datasets, arrow", 2),
    ("litdata", 4),
    ("mosaicml-streaming", 20),
    ("webdataset", 20),
)


def measured(report: Report, folder: Path, *, rows: int, workers: int, rounds: int) -> list[Goal]:
    """Tables of loaders, and what was wanted of them."""
    folder.mkdir(parents=True)
    made = parts.make(folder, rows)
    report.note(
        f"Loaders: {rows:,} rows of {parts.CLASSES:,} classes in float16, batches of {BATCH}, shuffled. The "
        "others give float16 as it was written."
    )
    goals: list[Goal] = []
    stored = {"needs": "compressed", "teachers": ["t0"]}
    soft = {"temperature": 4.0}
    kinds = {
        "one teacher's rows as they are stored": (stored, made.halves_MRC[:1]),
        f"soft targets of {TEACHERS} teachers (the others: their {TEACHERS} rows as stored)": (
            soft,
            made.halves_MRC,
        ),
    }
    for title, (options, halves_MRC) in kinds.items():
        for number in (0, workers):
            ours = {
                OURS: loader(str(made.plain), batch_size=BATCH, num_workers=number, **options),
                ANEW: loader(str(made.plain), batch_size=BATCH, num_workers=number, keep_bytes=0, **options),
            }
            works = {name: (lambda each=each: exhaust(each), rows) for name, each in ours.items()}
            costs: dict[str, Cost | str] = {
                name: median(each) for name, each in in_rounds(works, rounds).items()
            }
            others = rivals(folder, halves_MRC.transpose(1, 0, 2), rounds, workers=number)
            costs |= {name: each if isinstance(each, str) else each[1] for name, each in others.items()}
            by = f"by {number} workers (CPU of this process alone)" if number else "in one process"
            report.costs(f"{title[0].upper()}{title[1:]}, {by}: microseconds a row", costs, OURS)
            sides = (OURS, ANEW) if options is stored else (OURS,)
            what = f"{title.partition(' (')[0]}, {by.partition(' (')[0]}"
            goals += _goals(what, costs, sides, wall=number > 0)
    return goals


def _goals(what: str, costs: dict[str, Cost | str], sides: Sequence[str], *, wall: bool) -> list[Goal]:
    found: list[Goal] = []
    for ours in sides:
        own = costs[ours]
        assert isinstance(own, Cost)
        for rival, least in _WANTED:
            other = next((cost for name, cost in costs.items() if name.startswith(rival)), "")
            ratio = None
            if isinstance(other, Cost):
                ratio = other.wall / own.wall if wall else other.cpu / own.cpu
            found.append((f"{what}: {ours} >= {least} x {rival.strip()}", ratio, least))
    return found


def exhaust(found: StudentLoader) -> None:
    """Take an epoch's batches."""
    for _ in found:
        pass
