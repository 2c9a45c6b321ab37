"""How strongly the teacher is regularised: chosen on held-out training rows, by short trainings."""

from __future__ import annotations

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import teachers
from examples.paper.rows import HELD_OUT

EPOCHS = 10


def _line(key: str, inputs: float, hidden: float) -> Line:
    return Line(
        key=key,
        name=f"dropout of {inputs:.0%} of the pixels, {hidden:.0%} of the hidden units",
        runs=teachers(
            f"big dropout {inputs:g} {hidden:g}",
            seeds=1,
            rows="fit",
            judged_on=HELD_OUT,
            epochs=EPOCHS,
            input_dropout=inputs,
            hidden_dropout=hidden,
        ),
    )


RECIPE = Section(
    name="recipe",
    title="The teacher's dropout",
    about=f"The 1200-1200 net, {EPOCHS} epochs on 50,000 training rows, judged on the other 10,000: the "
    "choice of what the large teachers of all other sections were trained with.",
    unit="errors of 10,000 held-out training rows",
    lines=(_line("more", 0.2, 0.5), _line("chosen", 0.1, 0.3), _line("none", 0.0, 0.0)),
    claims=(
        Claim(
            text="10 % and 30 % make the fewest errors",
            holds=lambda of: of["chosen"] <= min(of["more"], of["none"]),
        ),
    ),
)
