"""The picture of a sweep: test errors over the first key that has numbers, a line for each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softcask.jobs.sweeping.report import Group, mean
from softcask.jobs.sweeping.students import short_keys, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 12
_WIDE = 8
"""From so large a ratio of its largest to its smallest value on, an axis is logarithmic."""


def draw(groups: Sequence[Group], path: Path, *, title: str) -> None:
    """Draw what came of a sweep; the mean over seeds as a point, from the least to the most as a bar.

    Args:
        groups: Students by all but their seed.
        path: PNG to write.
        title: Above it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (`softcask[report]`).
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = [group for group in groups if _measured(group)]
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    key = _axis(shown)
    if key is None:
        _bars(axes, shown)
    else:
        _lines(axes, shown, key)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, format="png")


def _lines(axes: Axes, groups: Sequence[Group], key: str) -> None:
    keys = short_keys(dict.fromkeys(each for group in groups for each in group.varied))
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = [f"{keys[each]}={shown_value(value)}" for each, value in group.varied.items() if each != key]
        label = ", ".join([group.variant, *others] if group.variant else others)
        lines.setdefault(label, []).append(group)
    for number, (label, line) in enumerate(lines.items()):
        colour = f"C{number % 10}"
        shown = label if number < _MOST_LINES else "_"
        if all(key in group.varied for group in line):
            line.sort(key=lambda group: group.varied[key])
            middles = [mean(_measured(group)) for group in line]
            below = [middle - min(_measured(group)) for middle, group in zip(middles, line, strict=True)]
            above = [max(_measured(group)) - middle for middle, group in zip(middles, line, strict=True)]
            x = [group.varied[key] for group in line]
            axes.errorbar(x, middles, [below, above], marker="o", capsize=3, color=colour, label=shown)
        else:  # it does not vary what is along the axis: a level that the others are above or below
            axes.axhline(mean(_measured(line[0])), linestyle="--", color=colour, label=shown)
    values = sorted({group.varied[key] for group in groups if key in group.varied})
    if values[0] > 0 and values[-1] / values[0] >= _WIDE:
        axes.set_xscale("log")
        axes.set_xticks(values, [shown_value(value) for value in values], minor=False)
        axes.minorticks_off()
    axes.set(xlabel=key, ylabel=_label(groups))
    if any(lines):
        axes.legend(fontsize=8, frameon=False)


def _bars(axes: Axes, groups: Sequence[Group]) -> None:
    middles = [mean(_measured(group)) for group in groups]
    below = [middle - min(_measured(group)) for middle, group in zip(middles, groups, strict=True)]
    above = [max(_measured(group)) - middle for middle, group in zip(middles, groups, strict=True)]
    axes.barh([group.name for group in groups], middles, xerr=[below, above], color="#7570b3", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(_label(groups))


def _axis(groups: Sequence[Group]) -> str | None:
    """The first key with several values, all of them numbers."""
    for key in dict.fromkeys(key for group in groups for key in group.varied):
        values: list[Any] = [group.varied[key] for group in groups if key in group.varied]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numbers and len(set(values)) > 1:
            return key
    return None


def _measured(group: Group) -> Sequence[float]:
    """Test errors; the loss where nothing is evaluated."""
    return group.errors or group.losses


def _label(groups: Sequence[Group]) -> str:
    return "test errors" if any(group.errors for group in groups) else "loss of the last epoch"
