"""Errors by temperature, for nets of 300 and of 30 units a layer, and logits matched."""

from __future__ import annotations

from typing import Any

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import students

TEMPERATURES = (1.0, 2.5, 4.0, 8.0, 12.0, 20.0)


def _by_temperature(units: int, paper: str) -> tuple[Line, ...]:
    def line(key: str, name: str, **fields: Any) -> Line:
        runs = students(f"{units} {name}", hidden_sizes=(units, units), **fields)
        return Line(key=f"{units} {key}", name=f"{units}-{units}, {name}", paper=paper, runs=runs)

    soft = [line(f"{t:g}", f"T = {t:g}", temperature=t) for t in TEMPERATURES]
    matched = line("logits", "logits matched", loss="logit_matching")
    return line("hard", "labels", loss="hard"), *soft, matched


TEMPERATURE = Section(
    name="temperature",
    title="Which temperature for which size, and matching logits",
    about="The same soft targets at several temperatures for nets of 300 and of 30 units a layer; beside "
    "them, logits matched by squared error, which high temperatures tend to.",
    lines=(*_by_temperature(300, "T > 8 alike"), *_by_temperature(30, "T = 2.5 to 4 best")),
    claims=(
        Claim(
            text="300 units: T = 8, 12 and 20 differ by a tenth at most",
            holds=lambda of: (high := sorted(of[f"300 {t}"] for t in (8, 12, 20)))[2] <= 1.1 * high[0],
        ),
        Claim(
            text="30 units: T = 2.5 or 4 is the best of all",
            holds=lambda of: (
                min(of["30 2.5"], of["30 4"])
                <= min(of[f"30 {key}"] for key in ("1", "8", "12", "20", "logits"))
            ),
        ),
        Claim(
            text="30 units: matching logits is worse than the best T",
            holds=lambda of: of["30 logits"] > min(of[f"30 {t:g}"] for t in TEMPERATURES),
        ),
        Claim(
            text="300 units: matching logits is within a tenth of T = 20",
            holds=lambda of: abs(of["300 logits"] - of["300 20"]) <= 0.1 * of["300 20"],
        ),
    ),
)
