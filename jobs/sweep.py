"""`softcask sweep`: many students from one store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, Settings
from softcask.jobs.progress import Bars
from softcask.storage_schemas.errors import ConfigError, StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softcask.jobs.sweeping.report import Group
    from softcask.jobs.sweeping.students import Student
    from softcask.jobs.sweeping.training import Outcome, Tell
    from softcask.jobs.sweeping.where import Where

EXAMPLES = (
    "Examples:\n\nsoftcask sweep student.toml --grid targets.temperature=1,4,20 --grid training.seed=0,1,2"
    "\n\nsoftcask sweep sweep.toml --serial\n\nsoftcask sweep sweep.toml --address auto --gpus 0.25 --json"
)
SUMMARY = "sweep.json"
PLOT = "sweep.png"

SweepFile = Annotated[
    Path,
    typer.Argument(
        metavar="SWEEP.toml", help="A sweep's file, or a student's with --grid.", show_default=False
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="KEY=V1,V2,...",
        help="Values to try for a key of the student file; repeated, every combination.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FOLDER", help="Where the students' folders are made.", show_default=False
    ),
]
Serial = Annotated[bool, typer.Option("--serial", help="One after another in this process, without Ray.")]
Address = Annotated[
    str,
    typer.Option(
        "--address", metavar="RAY", help="`local` starts Ray here; `auto` or HOST:PORT joins a cluster."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Students at once; as many as fit by default.",
        show_default=False,
    ),
]
Cpus = Annotated[int, typer.Option("--cpus", min=1, metavar="N", help="CPUs a student.")]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        min=0,
        metavar="N",
        help="GPUs a student, or a share of one; 1 by default where there are any.",
        show_default=False,
    ),
]
Restart = Annotated[bool, typer.Option("--restart", help="Discard what earlier trainings left.")]


def sweep(
    file: SweepFile,
    grid: Grid = None,
    settings: Settings = None,
    output: Output = None,
    serial: Serial = False,
    address: Address = "local",
    workers: Workers = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Train many students from one store, side by side on Ray; no teacher runs.

    Run again, it trains what is not finished: a student that was interrupted goes on at its checkpoint. One
    that fails ends no other; the command then exits with 2.
    """
    from softcask.jobs.sweeping.config import load_sweep
    from softcask.jobs.sweeping.report import document, grouped
    from softcask.jobs.sweeping.students import plan_students
    from softcask.jobs.sweeping.watching import Watcher
    from softcask.jobs.sweeping.where import Where
    from softcask.pipeline.config.toml import parse_overrides

    where = Where(address=address, most=workers, cpus=cpus, gpus=gpus)
    with console.answering(as_json):
        students = plan_students(
            load_sweep(file, grid=grid or (), output=output), parse_overrides(settings or ())
        )
        folder = _made(Path(students[0].config.output).parent)
        outcomes: dict[str, Outcome] = {}
        with Bars() as bars:
            watcher = Watcher(bars, students)
            running = (
                _serially(students, watcher.tell, restart)
                if serial
                else _on_ray(students, watcher.tell, restart, where)
            )
            for outcome in running:
                outcomes[outcome.name] = outcome
                watcher.end(outcome)
        groups = grouped(students, outcomes)
        answer = {"output": str(folder), **document(students, outcomes)}
        answer["plot"] = _draw(groups, folder / PLOT, title=file.stem)
        _write(folder / SUMMARY, answer)
    if as_json:
        console.emit(answer)
    else:
        _show(groups, answer)
    _refuse_failed(outcomes)


def _made(folder: Path) -> Path:
    """The sweep's folder, before anything is trained into it.

    Raises:
        StudentError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudentError(f"cannot make the output folder {folder}: {error.strerror}") from error
    return folder


def _serially(students: Sequence[Student], tell: Tell, restart: bool) -> Iterator[Outcome]:
    from softcask.jobs.sweeping.serial import train_serially

    return train_serially(students, tell, restart=restart)


def _on_ray(students: Sequence[Student], tell: Tell, restart: bool, where: Where) -> Iterator[Outcome]:
    try:
        from softcask.jobs.sweeping.on_ray import train_on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError(
            "Ray is not installed here: pip install 'softcask[engine]', or train one student after another "
            "with --serial"
        ) from error
    return train_on_ray(students, tell, where, restart=restart)


def _draw(groups: Sequence[Group], path: Path, *, title: str) -> str | None:
    """The plot's path; None where there is nothing to draw, or nothing to draw it with."""
    if not any(group.losses for group in groups):
        return None
    from softcask.jobs.sweeping.plot import draw

    try:
        draw(groups, path, title=title)
    except ModuleNotFoundError as error:
        missing = (error.name or "matplotlib").partition(".")[0]
        console.note(f"no plot is drawn: {missing} is not installed; pip install 'softcask[report]'")
        return None
    return str(path)


def _write(path: Path, answer: Mapping[str, Any]) -> None:
    from softcask.pipeline.student.training.checkpoints import save_text

    save_text(path, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")


def _show(groups: Sequence[Group], answer: Mapping[str, Any]) -> None:
    from softcask.jobs.sweeping.report import best, columns_and_rows, spread

    columns, rows = columns_and_rows(groups)
    console.show_table(columns, rows)
    if (winner := best(groups)) is not None:
        rows_tested = next(each.result.test_rows for each in winner.outcomes if each.result)
        console.say(f"fewest      {spread(winner.errors)} errors of {rows_tested:,}: {winner.name}")
    console.say(f"students    {answer['output']}")
    if answer["plot"]:
        console.say(f"plot        {answer['plot']}")


def _refuse_failed(outcomes: Mapping[str, Outcome]) -> None:
    """A sweep with failures ends in one message.

    Raises:
        StudentError: Students failed.
    """
    failed = [outcome for outcome in outcomes.values() if outcome.error is not None]
    if failed:
        told = "".join(f"\n  {outcome.name}: {outcome.error}" for outcome in failed)
        others = "; the others are trained" if len(failed) < len(outcomes) else ""
        raise StudentError(
            f"{len(failed)} of {console.many(len(outcomes), 'student')} failed{others}. Run the same command "
            f"again to train what is missing:{told}"
        )
