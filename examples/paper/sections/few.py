"""Three percent of the rows, learnt from labels and from soft targets."""

from __future__ import annotations

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import PLAIN, students
from examples.paper.runs import Loss, StudentRun


def _few(name: str, loss: Loss) -> tuple[StudentRun, ...]:
    return students(name, loss=loss, rows="3 %", epochs=400, batch_size=128)


FEW = Section(
    name="few",
    title="Soft targets as regularisers",
    about="3 % of the rows (1,800), learnt from labels and from the teacher's soft targets, beside all "
    "rows. The paper's figures are a speech model's frame accuracy, %, on the test set.",
    lines=(
        Line(key="hard", name="3 %, labels", paper="44.5 %", runs=_few("3 % labels", "hard")),
        Line(key="soft", name="3 %, soft targets", paper="57.0 %", runs=_few("3 % soft", "distillation")),
        Line(key="full", name="100 %, labels", paper="58.9 %", runs=PLAIN),
    ),
    claims=(
        Claim(
            text="soft targets make fewer errors than labels of the same rows",
            holds=lambda of: of["soft"] < of["hard"],
        ),
        Claim(
            text="and gain at least a third of what all rows gain",
            holds=lambda of: of["hard"] - of["soft"] > (of["hard"] - of["full"]) / 3,
        ),
    ),
)
