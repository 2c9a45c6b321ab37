"""The commands that pages on clusters and jobs hand out are commands, with options that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
from ray.scripts.scripts import cli as ray_command
from typer.testing import CliRunner

from softcask.jobs.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs" / "clusters").glob("*.md")),
    ROOT / "docker" / "README.md",
    ROOT / "docs" / "training.md",
]
SCRIPTS = [
    ROOT / "docs" / "clusters" / "softcask.sbatch",
    *sorted((ROOT / "docker").glob("**/*.yaml")),
]


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Place and arguments of each command: those of pages in their fences, those of scripts in comments."""
    for path in [*PAGES, *SCRIPTS]:
        text = path.read_text()
        shown = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if path in PAGES else [text]
        for line in "\n".join(shown).replace("\\\n", " ").splitlines():
            if found := re.match(rf"\s*#?\s*(?:[A-Z_]+=\S+ )*{program} (.*)", line):
                words = shlex.split(found[1], comments=True)
                yield path.name, [word for word in words if word not in ("&", "...")]


SOFTCASK = list(commands("softcask"))
RAY = [each for each in commands("ray") if "[" not in each[1][-1]]


def test_commands_are_found() -> None:
    assert {words[0] for _, words in SOFTCASK} >= {"submit", "inspect", "precompute"}
    assert {words[0] for _, words in RAY} >= {"up", "down", "start", "dashboard", "get-auth-token"}


@pytest.mark.parametrize(("place", "words"), SOFTCASK)
def test_softcask_knows_the_command(place: str, words: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(("place", "words"), RAY)
def test_ray_knows_the_command(place: str, words: list[str]) -> None:
    shown = click.testing.CliRunner().invoke(
        ray_command, [*(word for word in words if word not in (">", "/dev/null")), "--help"]
    )
    assert shown.exit_code == 0, shown.output
