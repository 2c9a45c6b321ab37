"""`softcask reencode`: a teacher's stored logits with another codec. No teacher runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from softcask.jobs import console
from softcask.jobs.import_ import answer
from softcask.jobs.options import Json, StoreUri, parsed_numbers
from softcask.jobs.progress import Bars
from softcask.storage_schemas.errors import ConfigError

if TYPE_CHECKING:
    from softcask.pipeline.codec_choice.request import CodecRequest

EXAMPLES = (
    "Examples:\n\nsoftcask reencode STORE --teacher a --codec dense8 --into a8\n\n"
    "softcask reencode STORE --teacher a --codec auto --max-bytes 256 --into a256"
)

Teacher = Annotated[str, typer.Option("--teacher", help="Whose stored logits.", show_default=False)]
Into = Annotated[
    str, typer.Option("--into", metavar="NAME", help="Name of the new entry.", show_default=False)
]
CodecName = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="dense16, dense8, topk, lowrank, or auto; by the number of classes by default.",
        show_default=False,
    ),
]
MaxBytes = Annotated[
    int | None, typer.Option("--max-bytes", help="Bytes a row, at most.", show_default=False)
]
MaxKl = Annotated[
    float | None, typer.Option("--max-kl", help="Mean KL in nats, at most.", show_default=False)
]
TopK = Annotated[
    int | None, typer.Option("--top-k", metavar="K", help="topk: classes a row.", show_default=False)
]
Temperatures = Annotated[
    str | None,
    typer.Option(
        metavar="T,T", help="Those that students will use; the budget holds at them.", show_default=False
    ),
]
AllowLossy = Annotated[
    bool, typer.Option("--allow-lossy", help="Also from a codec that keeps less than every logit.")
]


def reencode(
    store: StoreUri,
    teacher: Teacher,
    into: Into,
    codec: CodecName = None,
    max_bytes: MaxBytes = None,
    max_kl: MaxKl = None,
    top_k: TopK = None,
    temperatures: Temperatures = None,
    allow_lossy: AllowLossy = False,
    as_json: Json = False,
) -> None:
    """Keep a teacher's stored logits with another codec, under another name.

    Safe to run again: what is committed is left as it is.
    """
    from softcask.pipeline.derive import reencode as derive

    with console.answering(as_json), Bars() as bars:
        filled = derive(
            store,
            teacher=teacher,
            into=into,
            request=request(codec, max_bytes, max_kl, top_k, temperatures),
            allow_lossy=allow_lossy,
            progress=lambda done, total: bars.show("reencode", done, total, unit="rows"),
        )
    answer(filled, store, as_json)


def request(
    codec: str | None,
    max_bytes: int | None,
    max_kl: float | None,
    top_k: int | None,
    temperatures: str | None,
) -> CodecRequest:
    """What was asked for of a codec.

    Raises:
        ConfigError: It makes no sense.
    """
    from pydantic import ValidationError

    from softcask.pipeline.codec_choice.request import CodecRequest

    given = {
        "name": codec,
        "max_bytes": max_bytes,
        "max_kl": max_kl,
        "k": top_k,
        "temperatures": parsed_numbers("--temperatures", temperatures),
    }
    try:
        return CodecRequest.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ").removeprefix("Value error, ")
            for e in error.errors()
        )
        raise ConfigError(f"this asks for no codec: {problems}") from error
