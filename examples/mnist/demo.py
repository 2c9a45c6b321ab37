"""The whole way on MNIST: an ensemble labels 60,000 digits once, three students learn from what was kept.

    make demo        # or: python examples/mnist/demo.py

It only runs `softcask` commands that anyone could type (each is printed first), then shows what came of them.
Run again, it trains again and runs no teacher.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

import softcask
from softcask.pipeline.transfer_sets.idx import IdxOptions

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
TEMPERATURES = (1.0, 4.0, 20.0)
DIGITS = 6
STUDENTS = {
    "hard labels": ['loss={kind = "hard"}', "output=out/students/hard"],
    "distilled, T = 4": ["targets.temperature=4", "output=out/students/t4"],
    "distilled, T = 20": ["targets.temperature=20", "output=out/students/t20"],
}

console = Console()


def command(*words: str) -> dict[str, Any]:
    """Run a softcask command in this folder and return what it answers with `--json`."""
    console.print(f"\n[bold]$ softcask {shlex.join(words)}[/bold]", highlight=False, soft_wrap=True)
    softcask_script = Path(sys.executable).with_name("softcask")
    ended = subprocess.run([softcask_script, *words, "--json"], cwd=HERE, stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def train(settings: list[str]) -> dict[str, Any]:
    """Train one student anew; the same file for all, but for these settings."""
    flags = [word for setting in settings for word in ("--set", setting)]
    return command("train", "student.toml", *flags, "--restart")


def show_table(labelled: dict[str, Any], students: dict[str, dict[str, Any]]) -> None:
    """What it cost and what it brought."""
    table = Table(title="MNIST: teachers once, three students (784-800-800-10)")
    for heading in ("", "test errors", "seconds", "teacher passes"):
        table.add_column(heading, justify="right" if heading else "left")
    passes = sum(teacher["new_rows"] > 0 for teacher in labelled["teachers"].values())
    rows = f"labelling {labelled['rows']:,} rows"
    table.add_row(rows, "", f"{labelled['wall_seconds']:.1f}", str(passes), end_section=True)
    for name, result in students.items():
        cells = (str(result["errors"]), f"{result['seconds']:.1f}", str(result["teacher_passes"]))
        table.add_row(f"student, {name}", *cells)
    console.print("\n", table)


def draw_soft_targets(path: Path) -> None:
    """A few digits that the ensemble finds ambiguous, with what it thinks of them at each temperature."""
    store = softcask.open(str(OUT / "cask"))
    targets = softcask.SoftTargets(store)
    entropy_N = np.mean([store.stats(name)["entropy"].to_numpy() for name in targets.teachers], axis=0)
    rows_D = np.argsort(-entropy_N, kind="stable")[: DIGITS * 8 : 8]
    source = IdxOptions(images=str(HERE / "data" / "train-images-idx3-ubyte.gz")).open()
    images_D = source.read(store.rows.positions[rows_D]).inputs_B
    figure, axes = plt.subplots(DIGITS, 4, figsize=(9, 1.35 * DIGITS), width_ratios=[1, 2.4, 2.4, 2.4])
    for digit in range(DIGITS):
        axes[digit, 0].imshow(images_D[digit], cmap="gray_r")
        axes[digit, 0].set_axis_off()
    for column, temperature in enumerate(TEMPERATURES, start=1):
        probabilities_DC = targets.probabilities(rows_D, temperature)
        top = np.ceil(probabilities_DC.max() * 10) / 10
        axes[0, column].set_title(f"T = {temperature:g}", fontsize=11)
        for digit, row in enumerate(rows_D):
            label = int(store.rows.labels[row])
            colours = ["#d95f02" if c == label else "#7570b3" for c in range(10)]
            axes[digit, column].bar(range(10), probabilities_DC[digit], color=colours)
            axes[digit, column].set(ylim=(0, top), yticks=[0, top], xticks=range(10))
            axes[digit, column].tick_params(labelsize=7, length=2)
            axes[digit, column].spines[["top", "right"]].set_visible(False)
    figure.suptitle("Soft targets of the ensemble; the label's class in orange", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Label, train, show."""
    started = time.perf_counter()
    labelled = command("precompute", "run.toml")
    students = {name: train(settings) for name, settings in STUDENTS.items()}
    show_table(labelled, students)
    picture = OUT / "soft_targets.png"
    draw_soft_targets(picture)
    console.print(
        f"picture: {picture}", f"look further: softcask inspect {OUT / 'cask'}", sep="\n", highlight=False
    )
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)


if __name__ == "__main__":
    main()
