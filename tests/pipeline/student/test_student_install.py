"""`pip install softcask[student,s3]`: no Ray in it, and a student trains from an object store with no more.

Whatever else is installed here is hidden from the training's process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import fsspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.numpy import load_file
from tests.s3_server import S3

TRAIN = """
import json, sys
from importlib.machinery import PathFinder
hidden = set(json.loads(sys.argv[1]))

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else find(name, *rest)
from softcask.pipeline.student import train_student
from softcask.pipeline.student.config import StudentConfig
for config in sys.argv[2:]:
    train_student(StudentConfig.model_validate_json(config))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def closure(requirement: str) -> set[str]:
    """Names of all distributions that a requirement brings with it, as their metadata say."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            key = canonicalize_name(wanted.name), extra
            if key in found:
                continue
            found.add(key)
            for line in distribution(wanted.name).requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in found}


def test_the_students_install_has_no_ray_and_no_libraries_of_teachers_in_it() -> None:
    found = closure("softcask[student,s3]")
    assert {"torch", "s3fs", "numpy", "pyarrow"} <= found
    assert not {"ray", "transformers", "timm", "torchvision", "datasets", "duckdb", "pandas"} & found
    assert "ray" in closure("softcask[engine]"), "or the search would find nothing"


def test_a_student_of_that_install_learns_from_s3_what_it_learns_from_a_disk(world: Any, s3: S3) -> None:
    files = fsspec.filesystem("s3")
    files.put(world.store, s3.uri.removeprefix("s3://"), recursive=True)
    configs = [config_of(world, world.store, "disk"), config_of(world, s3.uri, "s3")]
    hidden = modules_outside(closure("softcask[student,s3]"))
    assert {"ray", "torchvision", "transformers", "duckdb", "pandas"} <= hidden
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(world.folder / "cache")}
    command = [sys.executable, "-c", TRAIN, json.dumps(sorted(hidden)), *configs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"torch", "s3fs"} <= set(json.loads(done.stdout))
    one, other = (load_file(world.folder / name / "model.safetensors") for name in ("disk", "s3"))
    assert {name: values.tobytes() for name, values in one.items()} == {
        name: values.tobytes() for name, values in other.items()
    }


def modules_outside(distributions: set[str]) -> set[str]:
    """Names of the modules here that none of these distributions brings."""
    return {
        module
        for module, names in packages_distributions().items()
        if not {canonicalize_name(name) for name in names} & distributions
    }


def config_of(world: Any, store: str, output: str) -> str:
    return json.dumps(
        {
            "store": store,
            "python_path": [str(Path(__file__).parent)],
            "output": str(world.folder / output),
            "transfer_set": {
                "kind": "arrays",
                "inputs": str(world.folder / "inputs.npy"),
                "id_prefix": "row",
            },
            "model": {"factory": "models_for_tests:mlp"},
            "training": {"epochs": 2, "batch_size": 32, "dtype": "float32"},
        }
    )
