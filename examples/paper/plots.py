"""The picture of the page: each seed a point, their mean a line, the paper's figure a cross."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from examples.paper.findings import Section
from examples.paper.report import Outcome, outcomes
from examples.paper.sections.few import FEW
from examples.paper.sections.mnist import MNIST
from examples.paper.sections.rate import RATE, RATES
from examples.paper.sections.temperature import TEMPERATURE, TEMPERATURES
from examples.paper.workshop import Workshop

_OURS, _PAPER, _LABELS = "#7570b3", "#d95f02", "#666666"


def draw(path: Path, workshop: Workshop) -> None:
    """Write the picture from what records there are."""
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.4))
    _nets(grid[0, 0], MNIST, workshop, ["big", "soft", "plain"], ["teacher", "distilled", "plain"])
    _nets(grid[1, 0], FEW, workshop, ["full", "soft", "hard"], ["100 %, labels", "3 %, soft", "3 %, labels"])
    for axes, units in zip(grid[:, 1], (300, 30), strict=True):
        keys = [*(f"{units} {t:g}" for t in TEMPERATURES), f"{units} logits"]
        _curve(axes, TEMPERATURE, workshop, keys, [*(f"{t:g}" for t in TEMPERATURES), "logits"])
        _level(axes, outcomes(TEMPERATURE, workshop)[f"{units} hard"])
        axes.set(title=f"{units} units a layer", xlabel="temperature")
    for axes, key, title in zip(grid[:, 2], ("hard", "soft"), ("labels", "soft targets"), strict=True):
        _curve(axes, RATE, workshop, [f"{key} {rate:g}" for rate in RATES], [f"{rate:g}" for rate in RATES])
        axes.set(title=f"held-out errors, {title}", xlabel="learning rate")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.has_data():
            axes.text(0.5, 0.5, "not yet run", ha="center", transform=axes.transAxes)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _nets(
    axes: Axes, section: Section, workshop: Workshop, keys: Sequence[str], names: Sequence[str]
) -> None:
    found = outcomes(section, workshop)
    for at, key in enumerate(keys):
        _points(axes, at, found[key])
        if (figure := found[key].line.paper).isdigit():
            axes.plot(at, int(figure), "x", color=_PAPER, label="paper" if at == 0 else None)
    axes.set_xticks(range(len(keys)), names)
    axes.set(title=section.title, ylabel="test errors", xlim=(-0.5, len(keys) - 0.5))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _curve(
    axes: Axes, section: Section, workshop: Workshop, keys: Sequence[str], names: Sequence[str]
) -> None:
    found = outcomes(section, workshop)
    places = [at for at, key in enumerate(keys) if found[key].values]
    for at in places:
        _points(axes, at, found[keys[at]])
    middles = [sum(found[keys[at]].values) / len(found[keys[at]].values) for at in places]
    axes.plot(places, middles, color=_OURS, linewidth=1)
    axes.set_xticks(range(len(keys)), names)
    axes.set(ylabel="errors")


def _points(axes: Axes, at: int, outcome: Outcome) -> None:
    axes.plot([at] * len(outcome.values), outcome.values, "o", color=_OURS, markersize=5, alpha=0.6)


def _level(axes: Axes, outcome: Outcome) -> None:
    if values := outcome.values:
        axes.axhline(sum(values) / len(values), color=_LABELS, linestyle=":", linewidth=1)
        axes.annotate("labels", (0, sum(values) / len(values)), color=_LABELS, fontsize=8, va="bottom")
