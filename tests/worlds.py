"""A small world for tests: rows on disk, a run's config over them, and stores compared object by object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from softcask.pipeline.precompute.config import RunConfig

TESTS = Path(__file__).parent
ROWS, CLASSES = 230, 5


def write_rows(folder: Path, *, rows: int = ROWS, unreadable: tuple[int, ...] = (), seed: int = 0) -> Path:
    """`inputs.npy` [rows, 6, 4] float32 and `labels.npy`; row i begins with i; `unreadable` rows hold NaN."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows, 6, 4)).astype(np.float32)
    inputs[:, 0, 0] = np.arange(rows)
    inputs[list(unreadable), 2, 2] = np.nan
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", generator.integers(0, CLASSES, rows))
    return folder


def teacher(name: str = "a", **options: Any) -> dict[str, Any]:
    """A `[[teachers]]` section."""
    scale = {"preprocessing": {"scale": 0.5}}
    return {"kind": "torch", "name": name, "factory": "toy_models:net", "batch_size": 16, **scale, **options}


def sections(folder: Path, *teachers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole run file as tables: rows in `folder`, the store at `folder/cask`."""
    return {
        "store": {"uri": str(folder / "cask"), "unit_rows": 32},
        "transfer_set": {
            "kind": "arrays",
            "inputs": str(folder / "inputs.npy"),
            "labels": str(folder / "labels.npy"),
            "max_quarantined": 0.1,
        },
        "classes": {"count": CLASSES},
        "teachers": list(teachers) or [teacher("a"), teacher("b", kwargs={"seed": 1})],
        "executor": {"kind": "serial"},
        "python_path": [str(TESTS)],
        **changes,
    }


def run_config(folder: Path, *teachers: dict[str, Any], **changes: Any) -> RunConfig:
    """The validated config of `sections`."""
    return RunConfig.model_validate(sections(folder, *teachers, **changes))


def objects_of(store: Path) -> dict[str, bytes]:
    """Every object of a local store, `runs/` apart."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] != "runs"
    }


def identities_of(store: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every object: equal only where a file was not written again."""
    return {
        str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in store.rglob("*")
        if path.is_file()
    }
