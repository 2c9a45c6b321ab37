"""Learning rates on held-out training rows, with labels and with soft targets."""

from __future__ import annotations

from collections.abc import Mapping

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import FIT, students
from examples.paper.rows import HELD_OUT
from examples.paper.runs import LR, Loss

RATES = (3e-4, 1e-3, 3e-3)
EPOCHS = 15


def _by_rate(key: str, loss: Loss) -> tuple[Line, ...]:
    return tuple(
        Line(
            key=f"{key} {rate:g}",
            name=f"{'distilled at T = 20' if key == 'soft' else 'labels'}, rate {rate:g}",
            runs=students(
                f"{key} rate {rate:g}",
                store=FIT,
                rows="fit",
                judged_on=HELD_OUT,
                loss=loss,
                lr=rate,
                epochs=EPOCHS,
            ),
        )
        for rate in RATES
    )


def _best(key: str, of: Mapping[str, float]) -> float:
    return min(RATES, key=lambda rate: of[f"{key} {rate:g}"])


RATE = Section(
    name="rate",
    title="The learning rate, with labels and with soft targets",
    about=f"800-800 nets, {EPOCHS} epochs on 50,000 training rows, judged on the other 10,000, which the "
    "teacher has not seen either: whether these rows choose the rate of all other sections.",
    unit="errors of 10,000 held-out training rows",
    lines=(
        Line(key="teacher", name="1200-1200, the teacher of these", runs=FIT.teachers),
        *_by_rate("hard", "hard"),
        *_by_rate("soft", "distillation"),
    ),
    claims=(
        Claim(
            text="soft targets bear a rate at least as high as labels do",
            holds=lambda of: _best("soft", of) >= _best("hard", of),
        ),
        Claim(
            text="three times the best rate costs soft targets less",
            holds=lambda of: (
                of[f"soft {RATES[-1]:g}"] / of[f"soft {RATES[-2]:g}"]
                < of[f"hard {RATES[-1]:g}"] / of[f"hard {RATES[-2]:g}"]
            ),
        ),
        Claim(
            text=f"the rate of the other sections, {LR:g}, is the best of these under soft targets",
            holds=lambda of: _best("soft", of) == LR,
        ),
    ),
)
