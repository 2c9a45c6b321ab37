"""`softcask train`: one student, from a store, in this process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, Settings
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from softcask.pipeline.student.training.results import StudentProgress, StudentResult

EXAMPLES = (
    "Examples:\n\nsoftcask train student.toml\n\n"
    "softcask train student.toml --set targets.temperature=20 --set output=runs/t20"
)

StudentFile = Annotated[
    Path, typer.Argument(metavar="STUDENT.toml", help="The student file.", show_default=False)
]
Restart = Annotated[bool, typer.Option("--restart", help="Discard what an earlier training left.")]


def train(
    student: StudentFile, settings: Settings = None, as_json: Json = False, restart: Restart = False
) -> None:
    """Train a student from stored soft targets; no teacher runs.

    Goes on from its last checkpoint when run again.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.student.config import load_student
    from softcask.pipeline.student.training.loop import train_student

    with console.answering(as_json), Bars() as bars:
        config = load_student(student, parse_overrides(settings or ()))
        result = train_student(config, progress=_watch(bars), restart=restart)
    if as_json:
        console.emit(asdict(result))
    else:
        _show(result, from_labels=config.loss.needs == "labels")


def _watch(bars: Bars) -> Callable[[StudentProgress], None]:
    def watch(progress: StudentProgress) -> None:
        if progress.message:
            bars.line(progress.message)
        epoch = min(progress.epoch + 1, progress.epochs)
        loss = f", loss {progress.loss:.4f}" if progress.loss is not None else ""
        rate = f", {progress.rows_per_second:,.0f} rows/s" if progress.rows_per_second else ""
        if progress.errors is not None:
            bars.line(f"after epoch {progress.epoch}: {console.many(progress.errors, 'test error')}")
        bars.show(
            "train",
            progress.step,
            progress.steps,
            unit="steps",
            note=f"epoch {epoch} of {progress.epochs}{loss}{rate}",
        )

    return watch


def _show(result: StudentResult, *, from_labels: bool) -> None:
    errors = f"{result.errors:,} of {result.test_rows:,}" if result.errors is not None else "not evaluated"
    console.show_table(
        ["loss", "T", "test errors", "epochs", "seconds", "teacher passes"],
        [
            [
                result.loss_kind,
                _temperature(result),
                errors,
                f"{result.epochs}",
                f"{result.seconds:,.1f}",
                f"{result.teacher_passes}",
            ]
        ],
    )
    source = "labels alone" if from_labels else f"the soft targets of {', '.join(result.teachers)}"
    console.say(f"trained     {result.parameters:,} parameters on {result.rows:,} rows, from {source}")
    if result.bias_correction is not None:
        console.say(f"bias        {_correction(result.bias_correction)}")
    console.say(f"model       {result.model}")


def _temperature(result: StudentResult) -> str:
    moved = result.last_temperature is not None
    return f"{result.temperature:g} to {result.last_temperature:g}" if moved else f"{result.temperature:g}"


def _correction(facts: dict[str, Any]) -> str:
    """The shift, what it was fitted to, what it changed and where it is."""
    classes = ", ".join(facts["classes"])
    parts = [
        f"{classes} {facts['shift']:+.2f} nats, fitted to {facts['held_out_rows']:,} held-out rows",
        "test errors {:,} -> {:,}".format(*facts["errors"]) if facts["errors"] else "",
        "of these classes {:,} -> {:,}".format(*facts["errors_in_classes"]) if facts["errors"] else "",
        f"in the model's {facts['parameter']}" if facts["parameter"] else f"to be added: {facts['file']}",
    ]
    return "; ".join(filter(None, parts))
