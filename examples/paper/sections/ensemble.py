"""Ten nets in one, and rows that no one labelled."""

from __future__ import annotations

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import ENSEMBLE, FROM_TENTH, MEMBERS, students
from examples.paper.runs import TogetherRun

ENSEMBLES = Section(
    name="ensemble",
    title="An ensemble of ten in one net of its size",
    about="Ten 800-800 nets that differ by their seed alone are trained on the labels of 6,000 digits, and "
    "one net of the same size learns from the soft targets of all ten, from the same 6,000. Few "
    "rows, because ten nets that saw 60,000 agree on nearly all of them and leave nothing to distil. "
    "The paper's figures are a speech model's frame accuracy, %.",
    lines=(
        Line(key="single", name="one net, the mean of ten", paper="58.9 %", runs=MEMBERS),
        Line(key="together", name="the ten together", paper="61.1 %", runs=(TogetherRun(store=ENSEMBLE),)),
        Line(
            key="soft",
            name="one net, distilled from the ten",
            paper="60.8 %",
            runs=FROM_TENTH,
        ),
    ),
    claims=(
        Claim(text="the ten together beat one", holds=lambda of: of["together"] < of["single"]),
        Claim(
            text="the distilled net keeps most of that",
            holds=lambda of: of["single"] - of["soft"] > 0.5 * (of["single"] - of["together"]),
        ),
    ),
)

UNLABELLED = Section(
    name="unlabelled",
    title="Transfer sets without labels",
    about="The same ten nets, which saw the labels of 6,000 digits, label the other 54,000 that no one "
    "labelled; students learn from those.",
    lines=(
        Line(key="single", name="one of the ten nets, 6,000 labels", runs=MEMBERS),
        Line(key="own", name="distilled, the same 6,000 rows", runs=FROM_TENTH),
        Line(
            key="others",
            name="distilled, 54,000 rows without label",
            runs=students("unlabelled", store=ENSEMBLE, rows="other nine tenths", epochs=40),
        ),
    ),
    claims=(
        Claim(
            text="rows without label teach more than the rows that have labels",
            holds=lambda of: of["others"] < of["own"],
        ),
    ),
)
