"""Arguments that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softcask.storage_schemas.errors import ConfigError

RunFile = Annotated[Path, typer.Argument(metavar="RUN.toml", help="The run file.", show_default=False)]
StoreUri = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder or fsspec URL of the store.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value in place of the file's: executor.kind=serial, teachers[0].batch_size=64. Repeatable.",
        show_default=False,
    ),
]
ClusterUrl = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="The cluster's dashboard: http://HOST:8265.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def stated_address(address: str | None) -> str:
    """The URL of a cluster, which a command cannot do without.

    Raises:
        ConfigError: None was given.
    """
    if not address:
        raise ConfigError(
            "no cluster is named: give --address with the URL of its dashboard, such as http://HOST:8265, or "
            "set RAY_API_SERVER_ADDRESS"
        )
    return address


def read_lines(file: Path, option: str) -> list[str]:
    """Lines of a text file that an option names.

    Raises:
        ConfigError: It cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"{option} {file}: no such file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option} {file}: not a text file that can be read: {error}") from error


def parsed_numbers(option: str, text: str | None) -> list[float] | None:
    """Numbers from a text such as `1,4,20`; None from none.

    Raises:
        ConfigError: Something between two commas is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text}: expected numbers such as 1,4,20") from error
