"""`softcask combine`: several teachers' stored logits as one entry. No teacher runs."""

from __future__ import annotations

from typing import Annotated

import typer

from softcask.jobs import console
from softcask.jobs.import_ import answer
from softcask.jobs.options import Json, StoreUri, parsed_numbers
from softcask.jobs.progress import Bars
from softcask.jobs.reencode import AllowLossy, CodecName, Into, MaxBytes, MaxKl, Temperatures, TopK, request

EXAMPLES = (
    "Examples:\n\nsoftcask combine STORE --teachers a,b --rule mean --into ab\n\n"
    "softcask combine STORE --teachers a,b,c --weights 2,1,1 --rule geometric --codec dense8 --into abc"
)

Teachers = Annotated[str, typer.Option(metavar="A,B", help="Which teachers.", show_default=False)]
Rule = Annotated[
    str,
    typer.Option(
        help="mean: of probabilities at T=1; geometric: of logits, which is the geometric mean at any T."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="W,W", help="A weight a teacher; equal by default.", show_default=False),
]


def combine(
    store: StoreUri,
    teachers: Teachers,
    into: Into,
    rule: Rule = "mean",
    weights: Weights = None,
    codec: CodecName = None,
    max_bytes: MaxBytes = None,
    max_kl: MaxKl = None,
    top_k: TopK = None,
    temperatures: Temperatures = None,
    allow_lossy: AllowLossy = False,
    as_json: Json = False,
) -> None:
    """Keep several teachers as one, of which students read as few bytes as of one.

    Safe to run again: what is committed is left as it is.
    """
    from softcask.pipeline.derive import combine as derive

    with console.answering(as_json), Bars() as bars:
        filled = derive(
            store,
            teachers=teachers.split(","),
            rule=rule,
            into=into,
            weights=parsed_numbers("--weights", weights),
            request=request(codec, max_bytes, max_kl, top_k, temperatures),
            allow_lossy=allow_lossy,
            progress=lambda done, total: bars.show("combine", done, total, unit="rows"),
        )
    answer(filled, store, as_json)
