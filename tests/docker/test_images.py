"""The images can hold whatever a run may need, at versions that are written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PINNED = dict(line.split("==") for line in (ROOT / "docker" / "pins.txt").read_text().split())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = ["engine", "student"]


@pytest.mark.parametrize(
    "extra", [extra for extra in PROJECT["optional-dependencies"] if extra not in ("dev", "report")]
)
def test_what_an_extra_asks_for_is_pinned_within_its_bounds(extra: str) -> None:
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        asked = Requirement(line)
        assert PINNED[asked.name] in asked.specifier


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_by_the_pins_and_runs_as_nobody_in_particular(name: str) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    extras = re.search(r'^ARG EXTRAS="(.+)"$', text, re.MULTILINE)
    assert extras and set(extras[1].split(",")) <= PROJECT["optional-dependencies"].keys()
    commands = re.sub(r"\\\n\s*", "", text).splitlines()
    installs = [line for line in commands if line.startswith("RUN") and "pip install" in line]
    assert installs and all("--constraint" in line and "--no-cache-dir" in line for line in installs)
    assert "USER 1000:1000" in commands
