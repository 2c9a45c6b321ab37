"""Whoever trains the tenth student has neither Ray nor the teachers: a fresh interpreter shows it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "ray",
    "softcask.pipeline.teachers",
    "softcask.pipeline.executors",
    "softcask.pipeline.label",
    "softcask.jobs",
)
STUDENT_SIDE = (
    "softcask",
    "softcask.pipeline.store",
    "softcask.pipeline.student",
    "softcask.pipeline.targets",
    "softcask.pipeline.transfer_sets",
    "softcask.pipeline.views",
)

LOADED_BY = """
import importlib, json, pkgutil, sys
name = sys.argv[1]
package = importlib.import_module(name)
if name == "softcask":
    package.open
else:
    [importlib.import_module(found.name) for found in pkgutil.walk_packages(package.__path__, name + ".")]
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(module: str) -> list[str]:
    """Names in `sys.modules` once a fresh interpreter has imported `module` and all that lies under it."""
    command = [sys.executable, "-c", LOADED_BY, module]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def heavy_in(loaded: list[str]) -> list[str]:
    return [
        name for name in loaded if name.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or name in HEAVY
    ]


@pytest.mark.parametrize("module", STUDENT_SIDE)
def test_importing_the_students_side_loads_neither_ray_nor_a_teacher(module: str) -> None:
    loaded = loaded_by(module)
    assert module in loaded
    assert heavy_in(loaded) == []


@pytest.mark.parametrize("module", ["softcask.storage_schemas", "softcask.pipeline.store"])
def test_looking_into_a_store_does_not_load_torch(module: str) -> None:
    assert "torch" not in loaded_by(module)


def test_the_search_for_heavy_modules_would_find_one() -> None:
    assert heavy_in(loaded_by("softcask.pipeline.teachers")) != []
