"""Tables and goals of a benchmark, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from measuring import Cost

Goal = tuple[str, float | None, float]
"""What was wanted, what was found (None: it could not be measured), and the least that was wanted."""


class Report:
    """A page, begun with what it was measured on."""

    def __init__(self, title: str, *notes: str) -> None:
        """Begin it."""
        self._lines = [f"# {title}", ""]
        for text in notes:
            self.note(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """One table; all columns but the first hold numbers."""
        self._lines += [f"## {title}", "", f"| {' | '.join(columns)} |"]
        self._lines.append(f"| --- |{' ---: |' * (len(columns) - 1)}")
        for row in rows:
            filled = [*row, *[""] * (len(columns) - len(row))]
            self._lines.append(f"| {' | '.join(filled)} |")
        self._lines.append("")

    def costs(self, title: str, costs: Mapping[str, Cost | str], reference: str) -> None:
        """A table of costs; each line's ratio is its CPU beside that of `reference`."""
        base = costs[reference]
        assert isinstance(base, Cost)
        rows = [
            (name, cost)
            if isinstance(cost, str)
            else (name, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{cost.cpu / base.cpu:.2f}")
            for name, cost in costs.items()
        ]
        self.table(title, ("", "CPU us", "wall us", f"CPU, {reference} = 1"), rows)

    def note(self, text: str) -> None:
        """A paragraph."""
        self._lines += [text, ""]

    def goals(self, goals: Sequence[Goal]) -> None:
        """What was wanted and what was found."""
        rows = []
        for text, found, least in goals:
            shown = "missing" if found is None else f"{found:.2f}"
            verdict = "" if found is None else "met" if found >= least else "**missed**"
            rows.append((text, shown, verdict))
        self._lines += ["## Goals", "", "| wanted | found | |", "| --- | ---: | --- |"]
        self._lines += [f"| {' | '.join(row)} |" for row in rows] + [""]

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines).rstrip() + "\n"
