"""Records as tables: `docs/paper.md` between its marks; what stands around them is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        records: Of those of its runs that are done, by the run's label.
    """

    line: Line
    records: Mapping[str, Record]

    @property
    def values(self) -> list[float]:
        """What is told of each record."""
        return [self.line.measure(record) for record in self.records.values()]

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
            seconds = [
                f"{mean(found):,.0f}" for found in zip(*map(_seconds, self.records.values()), strict=True)
            ]
            told = [_number(mean(values)), spread, seeds, *seconds]
        return [self.line.name, self.line.paper, *told]


def outcomes(section: Section, workshop: Workshop) -> dict[str, Outcome]:
    """What there is of each line of a section, by key."""
    found = {}
    for line in section.lines:
        records = {label(run): workshop.record(run) for run in line.runs}
        known = {name: record for name, record in records.items() if record is not None}
        found[line.key] = Outcome(line=line, records=known)
    return found


def means(found: Mapping[str, Outcome]) -> dict[str, float]:
    """Means over seeds, of lines alone that are complete."""
    return {key: mean(outcome.values) for key, outcome in found.items() if outcome.complete}


def page(sections: Sequence[Section], found: Mapping[str, Mapping[str, Outcome]], picture: str) -> str:
    """All tables in Markdown.

    Args:
        sections: In the order of the page.
        found: What there is of each section's lines, by its name and theirs.
        picture: Path of the picture, from the page.
    """
    summary = _summary(sections, found)
    tables = (_section(section, found[section.name]) for section in sections)
    return "\n\n".join([*summary, f"![Errors by net, temperature and learning rate]({picture})", *tables])


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


def _summary(sections: Sequence[Section], found: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    runs = {label(run) for section in sections for run in section.runs()}
    lines = (outcome for lines in found.values() for outcome in lines.values())
    done = {path: record for outcome in lines for path, record in outcome.records.items()}
    hours = sum(record.cpu_seconds for record in done.values()) / 3600
    rows = []
    for section in sections:
        known = means(found[section.name])
        for number, claim in enumerate(section.claims):
            title = f"[{section.title}](#{_anchor(section.title)})" if number == 0 else ""
            rows.append([title, claim.text, _VERDICTS[claim.verdict(known)]])
    return [
        f"{len(done)} of {len(runs)} runs are done; they took {hours:.1f} CPU-hours. A finding counts once "
        "all its seeds have run.",
        _table(["finding", "what must come out, in the mean", "it does"], rows),
    ]


def _section(section: Section, found: Mapping[str, Outcome]) -> str:
    head = ["", "paper", f"{section.unit}, mean", "least to most", "seeds", "wall s", "CPU s"]
    about = f"`python -m examples.paper {section.name}`. {section.about}"
    table = _table(head, [outcome.cells() for outcome in found.values()])
    return "\n\n".join([f"## {section.title}", about, table])


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
