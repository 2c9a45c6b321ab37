"""`softcask import`: others' logits as a teacher of a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri, read_lines
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.entries import Filled

EXAMPLES = (
    "Examples:\n\nsoftcask import tinyvit logits_top100_epoch0 STORE --name clip --classes 21841\n\n"
    "softcask import distillkit captured STORE --name llama\n\n"
    "softcask import npy logits.npy STORE --name big --ids ids.npy --codec dense8"
)

Format = Annotated[
    str,
    typer.Argument(metavar="FORMAT", help="tinyvit, distillkit, parquet or npy.", show_default=False),
]
Path_ = Annotated[Path, typer.Argument(metavar="PATH", help="File or folder.", show_default=False)]
Name = Annotated[
    str, typer.Option("--name", metavar="TEACHER", help="Name in the store.", show_default=False)
]
Classes = Annotated[
    int | None,
    typer.Option(min=2, help="How many, where neither format nor store says it.", show_default=False),
]
ClassNames = Annotated[
    Path | None,
    typer.Option("--class-names", metavar="FILE", help="A name a line, for a new store.", show_default=False),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="K", help="tinyvit: classes a row, if not in PATH.", show_default=False),
]
Packing = Annotated[
    Path | None,
    typer.Option(
        "--settings", metavar="YAML", help="distillkit: if not beside the Parquet.", show_default=False
    ),
]
Ids = Annotated[
    Path | None, typer.Option("--ids", metavar="NPY", help="npy: sample ids.", show_default=False)
]
Labels = Annotated[
    Path | None, typer.Option("--labels", metavar="NPY", help="npy: class indices.", show_default=False)
]
IdPrefix = Annotated[
    str | None,
    typer.Option("--id-prefix", help="npy: ids are PREFIX-00000000 and on.", show_default=False),
]
CodecName = Annotated[str, typer.Option("--codec", help="npy: how logits are kept.")]
UnitRows = Annotated[
    int | None, typer.Option("--unit-rows", min=1, help="Rows a unit, for a new store.", show_default=False)
]
IgnoreExtra = Annotated[
    bool, typer.Option("--ignore-extra", help="Leave out rows that the store does not have.")
]
Stats = Annotated[
    bool,
    typer.Option("--stats/--no-stats", help="Statistics for pandas; with many classes they take longest."),
]


def import_(
    kind: Format,
    path: Path_,
    store: StoreUri,
    name: Name,
    classes: Classes = None,
    class_names: ClassNames = None,
    top_k: TopK = None,
    settings: Packing = None,
    ids: Ids = None,
    labels: Labels = None,
    id_prefix: IdPrefix = None,
    codec: CodecName = "dense16",
    unit_rows: UnitRows = None,
    ignore_extra: IgnoreExtra = False,
    stats: Stats = True,
    as_json: Json = False,
) -> None:
    """Make a teacher of logits that another program kept; rows join a store's by sample id.

    Safe to run again: what is committed is left as it is.
    """
    from softcask.pipeline.exchange.importers.base import Source
    from softcask.pipeline.exchange.importing import import_logits

    names = None if class_names is None else read_lines(class_names, "--class-names")
    source = Source(
        path=path,
        classes=classes,
        top_k=top_k,
        settings=settings,
        ids=ids,
        labels=labels,
        id_prefix=id_prefix,
    )
    with console.answering(as_json), Bars() as bars:
        filled = import_logits(
            kind,
            source,
            store,
            name=name,
            class_names=names,
            codec=codec,
            unit_rows=unit_rows,
            ignore_extra=ignore_extra,
            stats=stats,
            progress=lambda done, total: bars.show("import", done, total, unit="rows"),
        )
    answer(filled, store, as_json)


def answer(filled: Filled, store: str, as_json: bool) -> None:
    """What became of an entry."""
    if as_json:
        console.emit(asdict(filled))
        return
    console.say(f"teacher     {filled.teacher}, {filled.codec}, {console.size(filled.bytes)}")
    units = f"{console.many(filled.new_units, 'new unit')} of {filled.units:,}, {filled.rows:,} rows"
    console.say(f"units       {units if filled.new_units else f'nothing to do: all {filled.units:,} stand'}")
    console.say(f"store       {store}, generation {filled.generation}")
