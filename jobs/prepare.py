"""`softcask prepare`: decode a transfer set once, so that neither teachers nor students decode it again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, RunFile, Settings
from softcask.jobs.progress import Bars

if TYPE_CHECKING:
    from softcask.pipeline.preparing.driver import PreparedSummary

EXAMPLES = (
    "Examples:\n\nsoftcask prepare run.toml --into prepared\n\n"
    "softcask prepare run.toml --into s3://bucket/prepared --set executor.address=auto"
)

Into = Annotated[
    str, typer.Option("--into", metavar="FOLDER", help="Folder or fsspec URL.", show_default=False)
]
BlockRows = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Rows a block; by default what 64 MiB hold.", show_default=False),
]


def prepare(
    run: RunFile, into: Into, block_rows: BlockRows = None, settings: Settings = None, as_json: Json = False
) -> None:
    """Decode and resize the transfer set of a run into a folder that is used in its place.

    Safe to run again: blocks that stand are left as they are, and only what is missing is made.
    """
    from softcask.pipeline.config.toml import parse_overrides
    from softcask.pipeline.precompute.config import load_run
    from softcask.pipeline.preparing.driver import prepare as decode

    with console.answering(as_json), Bars() as bars:
        config = load_run(run, parse_overrides(settings or ()))
        summary = decode(
            config,
            into,
            block_rows=block_rows,
            watch=lambda done, total: bars.show("prepare", done, total, unit="rows"),
        )
    if as_json:
        console.emit(asdict(summary))
    else:
        _show(summary)
    if summary.quarantined:
        console.warn(
            f"{console.many(summary.quarantined, 'row')} could not be read and stay unreadable; the reason "
            f"of each is in the column `quarantine` of {summary.path}/rows.parquet"
        )


def _show(summary: PreparedSummary) -> None:
    console.say(f"prepared    {summary.path}")
    blocks = f"{console.many(summary.blocks, 'block')}, {summary.made:,} of them made now"
    console.say(f"rows        {summary.rows:,} in {blocks}; {console.size(summary.bytes)}")
    console.say("use it as   [transfer_set]")
    console.say('            kind = "prepared"')
    console.say(f'            path = "{summary.path}"')
