"""Classes that the transfer set lacks, and their biases."""

from __future__ import annotations

from examples.paper.findings import Claim, Line, Section, percent, wrong_of
from examples.paper.nets import students
from examples.paper.runs import BiasRun

NO_3 = students("no 3", rows="fit, no 3")
ONLY_7_8 = students("only 7 8", rows="fit, only 7 and 8", epochs=160)
CORRECTED_3 = tuple(BiasRun(student=run, classes=(3,)) for run in NO_3)

OMITTED = Section(
    name="omitted",
    title="A digit that the student never saw",
    about="No 3 is in the transfer set, and soft targets tell what a 3 looks like all the same. The "
    "student's bias for 3 comes out too low; it is corrected by what counts fewest errors on 10,000 "
    "training rows that were held out (the paper chose it on the test rows). The paper's student saw "
    "60,000 rows, less the threes, this one 50,000.",
    lines=(
        Line(key="all", name="all digits' errors", paper="206", runs=NO_3),
        Line(key="3", name="of these, threes", paper="133", runs=NO_3, measure=wrong_of(3)),
        Line(
            key="all corrected",
            name="all digits' errors, bias corrected",
            paper="109",
            runs=CORRECTED_3,
        ),
        Line(key="3 corrected", name="of these, threes", paper="14", runs=CORRECTED_3, measure=wrong_of(3)),
    ),
    claims=(
        Claim(text="most threes are known to a net that saw none", holds=lambda of: of["3"] < 1010 / 2),
        Claim(
            text="correcting the bias makes fewer errors", holds=lambda of: of["all corrected"] < of["all"]
        ),
        Claim(
            text="and leaves less than half of the errors on threes",
            holds=lambda of: of["3 corrected"] < of["3"] / 2,
        ),
    ),
)

TWO_DIGITS = Section(
    name="two-digits",
    title="Two digits teach all ten",
    about="The transfer set holds sevens and eights alone; the biases of these two are lowered afterwards, "
    "by what counts fewest errors on the held-out training rows.",
    unit="test errors, %",
    lines=(
        Line(key="before", name="sevens and eights", paper="47.3", runs=ONLY_7_8, measure=percent),
        Line(
            key="after",
            name="biases corrected",
            paper="13.2",
            runs=tuple(BiasRun(student=run, classes=(7, 8)) for run in ONLY_7_8),
            measure=percent,
        ),
    ),
    claims=(
        Claim(
            text="more than half of all digits are right, eight of ten never seen",
            holds=lambda of: of["before"] < 50,
        ),
        Claim(
            text="correcting the biases leaves less than half",
            holds=lambda of: of["after"] < of["before"] / 2,
        ),
    ),
)
