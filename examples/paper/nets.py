"""Teachers, stores and students that several sections share; equal runs are one run, trained once."""

from __future__ import annotations

from typing import Any

from examples.paper.rows import HELD_OUT, TEST
from examples.paper.runs import Store, StudentRun, TeacherRun
from examples.paper.teachers import Recipe

SEEDS = (0, 1, 2)


def teachers(
    name: str, *, seeds: int, rows: str = "all", judged_on: str = TEST, **recipe: Any
) -> tuple[TeacherRun, ...]:
    """Nets trained from labels that differ by their seed, 0 and up; `recipe` as `Recipe` has it."""
    return tuple(
        TeacherRun(name=name, rows=rows, judged_on=judged_on, recipe=Recipe(seed=seed, **recipe))
        for seed in range(seeds)
    )


BIG_NETS = teachers("big", seeds=len(SEEDS), epochs=100)
BIG = Store(name="big", teachers=BIG_NETS[:1])
FIT = Store(name="fit", teachers=teachers("big fit", seeds=1, rows="fit", judged_on=HELD_OUT, epochs=30))
MEMBERS = teachers(
    "member",
    seeds=10,
    rows="tenth",
    hidden_sizes=(800, 800),
    epochs=60,
    batch_size=128,
    lr=1e-3,
    input_dropout=0.0,
    hidden_dropout=0.0,
    max_norm=None,
    jitter=0,
)
ENSEMBLE = Store(name="ensemble", teachers=MEMBERS)


def students(name: str, *, epochs: int = 50, store: Store = BIG, **fields: Any) -> tuple[StudentRun, ...]:
    """Students that differ by their seed; `fields` as `StudentRun` has them."""
    return tuple(StudentRun(name=name, store=store, seed=seed, epochs=epochs, **fields) for seed in SEEDS)


PLAIN = students("plain 800", loss="hard")
SOFT = students("soft 800")
FROM_TENTH = students("from ten", store=ENSEMBLE, rows="tenth", epochs=240, batch_size=128)
