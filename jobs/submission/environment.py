"""What of this environment a job gets: variables that are asked for by name, packages, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from softcask.pipeline.config.credentials import holds_credentials, names_secret
from softcask.storage_schemas.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def stated_variables(stated: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job gets, from `NAME`, whose value is taken from here, or `NAME=VALUE`.

    Args:
        stated: What the user asks for.
        environ: This environment.

    Raises:
        ConfigError: No such variable here, no name, or a secret whose value was written out.
    """
    variables = {}
    for each in stated:
        name, given, value = each.partition("=")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"--env {name}: expected NAME, or NAME=VALUE for what is no secret")
        if given and (names_secret(name) or holds_credentials(value)):
            raise ConfigError(
                f"--env {name}=...: looks like a secret, which command lines and shell histories show. Set "
                f"the variable here and give its name alone: --env {name}"
            )
        if not given and name not in environ:
            raise ConfigError(f"--env {name}: there is no such variable in this environment; set it first")
        variables[name] = value if given else environ[name]
    return variables


def secret_names(variables: Mapping[str, str]) -> list[str]:
    """Those among the variables that seem to hold a secret, sorted."""
    return sorted(name for name, value in variables.items() if names_secret(name) or holds_credentials(value))


def requirements(stated: Sequence[str]) -> list[str]:
    """Pip requirements, from requirements or names of `.txt` files of them.

    Raises:
        ConfigError: A file cannot be read, or a line has a password in it.
    """
    lines = [line for each in stated for line in _lines(each)]
    for line in lines:
        if holds_credentials(line):
            raise ConfigError(
                "--pip: an address with a credential in it, which whoever reaches the cluster's dashboard "
                "could read; set up the index in pip's own configuration on the nodes, or in their image"
            )
    return lines


def _lines(stated: str) -> Iterator[str]:
    if not stated.endswith(".txt"):
        yield stated
        return
    try:
        text = Path(stated).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--pip {stated}: cannot be read: {error}") from error
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
