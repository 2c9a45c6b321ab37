"""`softcask export`: soft targets as plain Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri, parsed_numbers, read_lines
from softcask.jobs.progress import Bars
from softcask.storage_schemas.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from softcask.pipeline.exchange.export import ExportReport
    from softcask.pipeline.store.reading.reader import Store

EXAMPLES = (
    "Examples:\n\nsoftcask export STORE targets.parquet --temperature 4\n\n"
    "softcask export STORE s3://bucket/targets --teachers a,b --rule geometric --top-k 20\n\n"
    "softcask export STORE logits.parquet --teachers a --logits --limit 1000"
)

Out = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        help="Local path or fsspec URL: NAME.parquet is one file, any other name a folder of several.",
        show_default=False,
    ),
]
Teachers = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Which teachers; all of role member by default.", show_default=False),
]
Rule = Annotated[str, typer.Option(help="How several teachers become one: mean or geometric.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="W,W", help="A weight a teacher; equal by default.", show_default=False),
]
Temperature = Annotated[
    float | None, typer.Option(metavar="T", help="Of the probabilities; 1 by default.", show_default=False)
]
Logits = Annotated[bool, typer.Option("--logits", help="Raw logits in place of probabilities.")]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k", metavar="K", help="Only the K largest a row, with their classes.", show_default=False
    ),
]
Wide = Annotated[bool, typer.Option("--wide", help="A column a class in place of one column of lists.")]
RowsFile = Annotated[
    Path | None,
    typer.Option("--rows", metavar="FILE", help="Only these sample ids, one a line.", show_default=False),
]
View = Annotated[
    int, typer.Option("--view", min=0, metavar="N", help="What is said of this view of the rows.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Only the first N rows.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at OUT.")]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Also of a store that is not sealed: the rows it has so far.")
]


def export(
    store: StoreUri,
    out: Out,
    teachers: Teachers = None,
    rule: Rule = "mean",
    weights: Weights = None,
    temperature: Temperature = None,
    logits: Logits = False,
    top_k: TopK = None,
    wide: Wide = False,
    rows: RowsFile = None,
    view: View = 0,
    limit: Limit = None,
    overwrite: Overwrite = False,
    allow_partial: AllowPartial = False,
    as_json: Json = False,
) -> None:
    """Write decoded soft targets, or the top classes, as Parquet for pandas, DuckDB and `datasets`."""
    from softcask.pipeline.exchange.export import Shape
    from softcask.pipeline.exchange.export import export as write
    from softcask.pipeline.store.reading.reader import open_store
    from softcask.pipeline.targets.in_view import in_view
    from softcask.pipeline.targets.soft_targets import SoftTargets

    if logits and temperature is not None:
        raise ConfigError("--logits and --temperature: logits have no temperature; leave one out")
    opened = open_store(store, allow_partial=allow_partial)
    names = teachers.split(",") if teachers else None
    targets = SoftTargets(opened, names, rule, parsed_numbers("--weights", weights))
    targets = in_view(targets, opened, view)
    shape = Shape(
        values="logits" if logits else "probabilities",
        top_k=top_k,
        wide=wide,
        temperature=1.0 if temperature is None else temperature,
    )
    with Bars() as bars:
        report = write(
            targets,
            out,
            shape=shape,
            rows_N=_chosen(opened, rows, limit),
            overwrite=overwrite,
            progress=lambda done, total: bars.show("export", done, total, unit="rows"),
        )
    if as_json:
        console.emit(asdict(report))
    else:
        _show(report, targets.teachers)


def _chosen(store: Store, file: Path | None, limit: int | None) -> NDArray[np.int64] | None:
    import numpy as np

    if file is None and limit is None:
        return None
    rows_N = np.arange(len(store.rows)) if file is None else _listed(store, file)
    return rows_N[:limit]


def _listed(store: Store, file: Path) -> NDArray[np.int64]:
    ids = [line for line in read_lines(file, "--rows") if line]
    rows_N = store.rows.find(ids)
    if missing := [name for name, row in zip(ids, rows_N.tolist(), strict=True) if row < 0]:
        raise StoreError(
            f"{file}: {len(missing)} of {len(ids)} ids are no readable rows of {store.uri}, first "
            f"{missing[0]!r}"
        )
    return rows_N


def _show(report: ExportReport, teachers: Sequence[str]) -> None:
    console.say(f"wrote       {report.uri}")
    files = console.many(len(report.files), "file")
    console.say(
        f"rows        {report.rows:,} of {', '.join(teachers)}; {files}, {console.size(report.bytes)}"
    )
    for file in report.files[:1] if len(report.files) == 1 else ():
        console.say(f"crc32c      {file.crc32c}")
    if report.skipped:
        console.warn(
            f"{console.many(report.skipped, 'row')} left out: not all teachers have labelled them yet"
        )
