"""Records as tables: `docs/paper.md` between its marks; what stands around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from examples.paper.findings import Line, Section
from examples.paper.runs import Record, label
from examples.paper.workshop import Workshop

BEGIN = "<!-- written by `python -m examples.paper`: begin -->"
END = "<!-- end -->"
_VERDICTS = {True: "yes", False: "**no**", None: "not yet run"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A line with the records that there are of it.

    Attributes:
        line: Of a section's table.
        records: Of those of its runs that are done.
    """

    line: Line
    records: tuple[Record, ...]

    @property
    def values(self) -> list[float]:
        """What is told of each record."""
        return [self.line.measure(record) for record in self.records]

    @property
    def complete(self) -> bool:
        """Whether every seed is done."""
        return len(self.records) == len(self.line.runs)

    def cells(self) -> list[str]:
        """Name, the paper's figure, ours, spread, seeds, wall and CPU seconds."""
        seeds = f"{len(self.records)}" if self.complete else f"{len(self.records)} of {len(self.line.runs)}"
        told = ["not yet run", "", seeds, "", ""]
        if values := self.values:
            spread = f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else ""
            seconds = [f"{mean(found):,.0f}" for found in zip(*map(_seconds, self.records), strict=True)]
            told = [_number(mean(values)), spread, seeds, *seconds]
        return [self.line.name, self.line.paper, *told]


def outcomes(section: Section, workshop: Workshop) -> dict[str, Outcome]:
    """What there is of each line of a section, by key."""
    found = {}
    for line in section.lines:
        records = (workshop.record(run) for run in line.runs)
        found[line.key] = Outcome(line=line, records=tuple(record for record in records if record))
    return found


def means(found: Mapping[str, Outcome]) -> dict[str, float]:
    """Means over seeds, of lines alone that are complete."""
    return {key: mean(outcome.values) for key, outcome in found.items() if outcome.complete}


def page(sections: Iterable[Section], workshop: Workshop, picture: str) -> str:
    """All tables in Markdown."""
    sections = list(sections)
    parts = [_summary(sections, workshop), f"![Errors by net, temperature and learning rate]({picture})"]
    return "\n\n".join([*parts, *(_section(section, workshop) for section in sections)])


def write(path: Path, text: str) -> None:
    """Put the text between the page's marks; a page that is not there is begun.

    Raises:
        ValueError: The page has no marks.
    """
    whole = path.read_text("utf-8") if path.exists() else f"# The paper, reproduced\n\n{BEGIN}\n{END}\n"
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} lacks the marks {BEGIN!r} and {END!r}, between which tables are written")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


def _summary(sections: list[Section], workshop: Workshop) -> str:
    runs = {label(run): workshop.record(run) for section in sections for run in section.runs()}
    done = [record for record in runs.values() if record]
    hours = sum(record.cpu_seconds for record in done) / 3600
    rows = [
        [f"[{section.title}](#{_anchor(section.title)})", claim.text, _VERDICTS[claim.verdict(known)]]
        for section in sections
        for known in [means(outcomes(section, workshop))]
        for claim in section.claims
    ]
    told = f"{len(done)} of {len(runs)} runs are done; they took {hours:.1f} CPU-hours."
    return f"{told} A finding counts once all its seeds have run.\n\n" + _table(
        ["finding", "what must come out, in the mean", "it does"], rows
    )


def _section(section: Section, workshop: Workshop) -> str:
    found = outcomes(section, workshop)
    head = ["", "paper", f"{section.unit}, mean", "least to most", "seeds", "wall s", "CPU s"]
    return "\n\n".join(
        [
            f"## {section.title}",
            f"`python -m examples.paper {section.name}`. {section.about}",
            _table(head, [outcome.cells() for outcome in found.values()]),
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:" if len(head) > 3 else "---"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def _seconds(record: Record) -> tuple[float, float]:
    return record.seconds, record.cpu_seconds


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
