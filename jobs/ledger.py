"""`softcask ledger`: what a store's logits cost, and what students saved by them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreNotFound, StudentError

if TYPE_CHECKING:
    from softcask.pipeline.store.ledger import Spent
    from softcask.storage_schemas.runs import StudentSavings

EXAMPLES = (
    "Examples:\n\nsoftcask ledger STORE\n\nsoftcask ledger STORE runs/t4 runs/t20\n\n"
    "softcask ledger STORE runs/* --json"
)

Outputs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[OUTPUT]...", help="Outputs of students that were trained from it."),
]


def ledger(store: StoreUri, outputs: Outputs = None, as_json: Json = False) -> None:
    """Add up device-seconds: spent a teacher, as the store's runs recorded them, and saved by students.

    A student saved the passes that it would have run itself: once over its rows, or, distilled on-line, once
    an epoch. Both are told.
    """
    from softcask.pipeline.store.access.objects import StoreObjects
    from softcask.pipeline.store.ledger import spent_by_teacher, store_identity

    objects = StoreObjects.at(store)
    if objects.read_if_present(keys.ROOT) is None:
        raise StoreNotFound(f"there is no softcask store at {store} (no {keys.ROOT} in it); check the path")
    students = {str(output): read_savings(output) for output in _each_once(outputs or ())}
    identity = store_identity(objects)
    for output, savings in students.items():
        if savings.store != identity:
            raise StudentError(
                f"{output} was trained from another store than {store}; leave it out, or name its own store"
            )
    found = added_up(store, spent_by_teacher(objects), students)
    if as_json:
        console.emit(found)
    else:
        _show(found)


def read_savings(output: Path) -> StudentSavings:
    """What a student saved, from its output.

    Raises:
        StudentError: There is nothing of the kind.
    """
    from softcask.pipeline.student.training.savings import SAVINGS
    from softcask.storage_schemas.manifest import MOST_BYTES
    from softcask.storage_schemas.runs import StudentSavings

    path = output / SAVINGS
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StudentError(
            f"{path} cannot be read ({error.strerror}): name the output of a student whose training has "
            "ended. Of one that was trained by an older softcask, run `softcask train` again: it trains "
            "nothing that is done, and writes it."
        ) from error
    return StudentSavings.from_bytes(data, str(path))


def added_up(store: str, spent: dict[str, Spent], students: dict[str, StudentSavings]) -> dict[str, Any]:
    """The whole account, JSON-able; seconds are of devices, and None where nobody knows them."""
    used = {each.teacher for savings in students.values() for each in savings.teachers}
    teachers = {name: _teacher(name, spent.get(name), students) for name in sorted({*spent, *used})}
    return {
        "store": store,
        "teachers": teachers,
        "students": {output: _student(savings) for output, savings in students.items()},
        "spent_seconds": sum(each["device_seconds"] + each["trial_seconds"] for each in teachers.values()),
        "saved_seconds_a_pass": _sum(each["saved_seconds_a_pass"] for each in teachers.values()),
        "saved_seconds_an_epoch": _sum(each["saved_seconds_an_epoch"] for each in teachers.values()),
    }


def _teacher(name: str, spent: Spent | None, students: dict[str, StudentSavings]) -> dict[str, Any]:
    uses = [(each, s.epochs) for s in students.values() for each in s.teachers if each.teacher == name]
    reused = sum(each.rows for each, _ in uses)
    rows = spent.rows if spent else 0
    return {
        "rows": rows,
        "units": spent.units if spent else 0,
        "runs": spent.runs if spent else 0,
        "device_seconds": spent.device_seconds if spent else 0.0,
        "repeated_seconds": spent.repeated if spent else 0.0,
        "trial_seconds": spent.trials if spent else 0.0,
        "seconds_a_row": spent.seconds_a_row if spent else None,
        "students": len(uses),
        "rows_reused": reused,
        "times_reused": reused / rows if rows else None,
        "saved_seconds_a_pass": _sum(each.saved_seconds for each, _ in uses),
        "saved_seconds_an_epoch": _sum(_times(each.saved_seconds, epochs) for each, epochs in uses),
    }


def _student(savings: StudentSavings) -> dict[str, Any]:
    return {
        "epochs": savings.epochs,
        "teachers": [each.model_dump() for each in savings.teachers],
        "saved_seconds_a_pass": _sum(each.saved_seconds for each in savings.teachers),
        "saved_seconds_an_epoch": _sum(
            _times(each.saved_seconds, savings.epochs) for each in savings.teachers
        ),
    }


def _sum(parts: Iterable[float | None]) -> float:
    """Of what is known."""
    return sum(part for part in parts if part is not None)


def _times(seconds: float | None, times: int) -> float | None:
    return None if seconds is None else seconds * times


def _each_once(outputs: Iterable[Path]) -> list[Path]:
    return list({output.resolve(): output for output in outputs}.values())


def _show(found: dict[str, Any]) -> None:
    columns = ["teacher", "rows", "spent", "for nothing", "a row", "students", "reused", "a pass", "an epoch"]
    console.show_table(
        columns,
        [
            [
                name,
                f"{each['rows']:,}",
                _seconds(each["device_seconds"] + each["trial_seconds"]),
                _seconds(each["repeated_seconds"]),
                _small(each["seconds_a_row"]),
                f"{each['students']:,}",
                "-" if each["times_reused"] is None else f"{each['times_reused']:.1f} times",
                _seconds(each["saved_seconds_a_pass"]),
                _seconds(each["saved_seconds_an_epoch"]),
            ]
            for name, each in found["teachers"].items()
        ],
    )
    if found["students"]:
        console.show_table(
            ["student", "epochs", "teachers", "rows", "a pass", "an epoch"],
            [
                [
                    output,
                    f"{each['epochs']:,}",
                    ", ".join(used["teacher"] for used in each["teachers"]) or "none",
                    f"{max((used['rows'] for used in each['teachers']), default=0):,}",
                    _seconds(each["saved_seconds_a_pass"]),
                    _seconds(each["saved_seconds_an_epoch"]),
                ]
                for output, each in found["students"].items()
            ],
        )
    console.say(f"spent       {_seconds(found['spent_seconds'])} on devices by all teachers")
    if found["students"]:
        console.say(
            f"saved       {_seconds(found['saved_seconds_a_pass'])} at a pass a student, "
            f"{_seconds(found['saved_seconds_an_epoch'])} at a pass an epoch"
        )
    for name in (name for name, each in found["teachers"].items() if each["seconds_a_row"] is None):
        console.note(f"what a pass of {name} costs is not known here: no run of this store labelled by it")


def _seconds(seconds: float) -> str:
    if seconds >= 36_000:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds:,.1f} s" if seconds >= 1 or not seconds else f"{seconds:.3f} s"


def _small(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"
