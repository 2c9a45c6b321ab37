"""What a section of the paper is: the runs behind each line of its table, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from examples.paper.runs import Record, Run

Measure = Callable[[Record], float]


def errors(record: Record) -> float:
    """Rows that the net gets wrong."""
    return record.errors


def percent(record: Record) -> float:
    """The same in percent of the rows judged."""
    return 100 * record.errors / record.rows


def wrong_of(number: int) -> Measure:
    """Rows of one class that the net gets wrong."""
    return lambda record: record.wrong_by_class[number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a section's table: runs that differ by their seed alone.

    Attributes:
        key: What claims and plots call it.
        name: What was trained.
        paper: The paper's figure; empty where it has none.
        runs: One a seed.
        measure: What is told of each.
    """

    key: str
    name: str
    paper: str = ""
    runs: tuple[Run, ...]
    measure: Measure = errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What must come out.

    Attributes:
        text: As the table says it.
        holds: From the means of a section's lines by key; of those alone that all seeds have run.
    """

    text: str
    holds: Callable[[Mapping[str, float]], bool]

    def verdict(self, means: Mapping[str, float]) -> bool | None:
        """Whether it came out; None while a line that it looks at is missing."""
        try:
            return self.holds(means)
        except KeyError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One finding.

    Attributes:
        name: As it is called on the command line.
        title: Of its part of the page.
        about: What is done.
        lines: Its table.
        claims: What must come out.
        unit: What the figures are.
    """

    name: str
    title: str
    about: str
    lines: tuple[Line, ...]
    claims: tuple[Claim, ...]
    unit: str = "test errors of 10,000"

    def runs(self) -> list[Run]:
        """All it needs, the first seed of every line first; a run that two lines share comes once."""
        most = max(len(line.runs) for line in self.lines)
        found = (line.runs[at] for at in range(most) for line in self.lines if at < len(line.runs))
        return list(dict.fromkeys(found))

    def tiny(self) -> Section:
        """The same with next to no work and one seed a line, to try the whole way."""
        lines = (replace(line, runs=tuple(run.tiny() for run in line.runs[:1])) for line in self.lines)
        return replace(self, lines=tuple(lines))
