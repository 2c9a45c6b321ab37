"""The picture of the page: each seed a point, their mean a line, the paper's figure a cross."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from examples.paper.report import Outcome
from examples.paper.sections.rate import RATES
from examples.paper.sections.temperature import TEMPERATURES

Outcomes = Mapping[str, Outcome]

_OURS, _PAPER, _LABELS = "#7570b3", "#d95f02", "#666666"


def draw(path: Path, found: Mapping[str, Outcomes]) -> None:
    """Write the picture.

    Args:
        path: A PNG.
        found: What there is of each section's lines, by its name and theirs.
    """
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.4))
    _nets(grid[0, 0], found["mnist"], {"big": "teacher", "soft": "distilled", "plain": "plain"})
    _nets(grid[1, 0], found["few"], {"full": "100 %, labels", "soft": "3 %, soft", "hard": "3 %, labels"})
    grid[0, 0].set(title="A large net distilled")
    grid[1, 0].set(title="3 % of the rows")
    for axes, units in zip(grid[:, 1], (300, 30), strict=True):
        names = {f"{units} {t:g}": f"{t:g}" for t in TEMPERATURES} | {f"{units} logits": "logits"}
        _curve(axes, found["temperature"], names)
        _level(axes, found["temperature"][f"{units} hard"])
        axes.set(title=f"{units} units a layer", xlabel="temperature", ylabel="test errors")
    for axes, key, title in zip(grid[:, 2], ("hard", "soft"), ("labels", "soft targets"), strict=True):
        _curve(axes, found["rate"], {f"{key} {rate:g}": f"{rate:g}" for rate in RATES})
        axes.set(title=f"Learning from {title}", xlabel="learning rate", ylabel="held-out errors")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _nets(axes: Axes, found: Outcomes, names: Mapping[str, str]) -> None:
    _points(axes, found, names)
    figures = [(at, found[key].line.paper) for at, key in enumerate(names)]
    known = [(at, int(figure)) for at, figure in figures if figure.isdigit()]
    if known:
        axes.plot(*zip(*known, strict=True), "x", color=_PAPER, label="paper")
        axes.legend(frameon=False)
    axes.set(ylabel="test errors", xlim=(-0.5, len(names) - 0.5))


def _curve(axes: Axes, found: Outcomes, names: Mapping[str, str]) -> None:
    _points(axes, found, names)
    known = [(at, mean(found[key].values)) for at, key in enumerate(names) if found[key].values]
    if known:
        axes.plot(*zip(*known, strict=True), color=_OURS, linewidth=1)


def _points(axes: Axes, found: Outcomes, names: Mapping[str, str]) -> None:
    points = [(at, value) for at, key in enumerate(names) for value in found[key].values]
    if points:
        axes.plot(*zip(*points, strict=True), "o", color=_OURS, markersize=5, alpha=0.6)
    else:
        axes.text(0.5, 0.5, "not yet run", ha="center", transform=axes.transAxes)
        axes.set(yticks=[])
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.spines[["top", "right"]].set_visible(False)


def _level(axes: Axes, outcome: Outcome) -> None:
    if outcome.values:
        axes.axhline(mean(outcome.values), color=_LABELS, linestyle=":", linewidth=1)
        axes.annotate("labels", (0, mean(outcome.values)), color=_LABELS, fontsize=8, va="bottom")
