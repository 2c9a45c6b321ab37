"""`softcask diff`: in what two stores differ, or two teachers of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json
from softcask.jobs.progress import Bars
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    from softcask.pipeline.store.care.differences import (
        Difference,
        Divergence,
        StoreDifferences,
        TeacherDifferences,
    )

EXAMPLES = (
    "Examples:\n\nsoftcask diff STORE OTHER\n\nsoftcask diff STORE OTHER --sample 0 --json\n\n"
    "softcask diff STORE --teacher resnet-a --teacher resnet-b"
)
_SHOWN = 12

StoreA = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder or fsspec URL of a store.", show_default=False)
]
StoreB = Annotated[
    str | None, typer.Argument(metavar="[OTHER]", help="The store to compare it with.", show_default=False)
]
Teachers = Annotated[
    list[str] | None,
    typer.Option("--teacher", metavar="NAME", help="Given twice: compare these two of the one store."),
]
Sample = Annotated[int, typer.Option("--sample", min=0, help="Rows a teacher whose logits are compared.")]
Temperature = Annotated[float, typer.Option("--temperature", help="T of the divergence.")]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Also look at what is committed and not sealed yet.")
]


def diff(
    store: StoreA,
    other: StoreB = None,
    teachers: Teachers = None,
    sample: Sample = 4096,
    temperature: Temperature = 1.0,
    allow_partial: AllowPartial = False,
    as_json: Json = False,
) -> None:
    """Compare classes, rows, teachers, committed units, and what the teachers say of the same rows.

    Exits with 1 when they differ.
    """
    from softcask.pipeline.store.care.differences import diff_stores, diff_teachers
    from softcask.pipeline.store.reading.reader import open_store

    if (other is None) != (len(teachers or ()) == 2) or (other and teachers):
        raise ConfigError("name another store to compare with, or two teachers: --teacher A --teacher B")
    opened = open_store(store, allow_partial=allow_partial)
    found: StoreDifferences | TeacherDifferences
    with Bars() as bars:

        def watch(done: int, total: int) -> None:
            bars.show("compare", done, total, unit="rows")

        options: dict[str, Any] = {"sample": sample, "temperature": temperature, "progress": watch}
        if other is not None:
            found = diff_stores(opened, open_store(other, allow_partial=allow_partial), **options)
        else:
            a, b = teachers or ("", "")
            found = diff_teachers(opened, a, b, **options)
    if as_json:
        console.emit({"equal": found.equal, **asdict(found)})
    elif other is not None:
        _show_stores(found, store, other)  # type: ignore[arg-type]
    else:
        _show_teachers({" and ".join(teachers or ()): found})  # type: ignore[dict-item]
    if not found.equal:
        raise typer.Exit(1)


def _show_stores(found: StoreDifferences, a: str, b: str) -> None:
    for what, differences in (
        ("class", found.classes),
        ("segment", found.segments),
        ("view", found.views),
    ):
        _show_fields(what, differences)
    rows = found.rows
    console.say(
        f"rows        {rows.common:,} in both, {rows.only_a:,} only in {a}, {rows.only_b:,} only in {b}"
    )
    if rows.other_content or rows.other_label:
        console.say(
            f"            {rows.other_content:,} with other content, {rows.other_label:,} other labels"
        )
    for uri, names in ((a, found.teachers_a), (b, found.teachers_b)):
        if names:
            console.say(f"teachers    only in {uri}: {', '.join(names)}")
    if found.teachers:
        _show_teachers(found.teachers)
    if found.equal:
        console.say("equal: students see the same in both")


def _show_teachers(teachers: dict[str, TeacherDifferences]) -> None:
    console.show_table(
        ["teacher", "same units", "only in one", "other bytes", "rows compared", "KL mean", "max", "top-1"],
        [
            [
                name,
                f"{each.units:,}",
                f"{each.only_a:,} + {each.only_b:,}",
                f"{each.other_bytes:,}",
                *_numbers(each.divergence),
            ]
            for name, each in teachers.items()
        ],
    )
    for name, each in teachers.items():
        _show_fields(name, each.fields)


def _numbers(divergence: Divergence | None) -> list[str]:
    if divergence is None:
        return ["none", "-", "-", "-"]
    return [
        f"{divergence.rows:,}",
        f"{divergence.kl_mean:.2e}",
        f"{divergence.kl_max:.2e}",
        f"{divergence.same_top:.2%}",
    ]


def _show_fields(what: str, differences: tuple[Difference, ...]) -> None:
    for each in differences[:_SHOWN]:
        console.say(f"{what} {each.name}: {_short(each.a)} against {_short(each.b)}")
    if len(differences) > _SHOWN:
        console.say(f"{what}: {len(differences) - _SHOWN:,} differences more")


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
