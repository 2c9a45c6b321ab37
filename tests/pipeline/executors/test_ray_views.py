"""Views labelled by Ray: the same store as the serial executor's, and the same rows seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.worlds import objects_of, run_config, teacher, write_rows

from softcask import student
from softcask.pipeline.precompute.driver import precompute

RAY = {"kind": "ray", "workers": 2}
VIEWS = {
    "count": 2,
    "seed": 3,
    "steps": [
        {"kind": "random_resized_crop", "height": 6, "width": 4, "scale": [0.4, 1.0]},
        {"kind": "flip"},
        {"kind": "callable", "function": "toy_views:jitter"},
        {"kind": "torchvision", "transform": "toy_views:noise"},
        {"kind": "mixup", "alpha": 0.4},
    ],
}


def run(folder: Path, cask: str, executor: dict[str, Any]) -> set[bytes]:
    """The store at `cask`; which rows its teacher saw."""
    seen = folder / "seen"
    seen.mkdir()
    recording = teacher("a", factory="toy_models:recording", kwargs={"folder": str(seen)}, preprocessing={})
    store = {"uri": str(folder / cask), "unit_rows": 32}
    precompute(run_config(folder, recording, store=store, executor=executor, views=VIEWS))
    rows = {row.tobytes() for file in seen.glob("*.npy") for row in np.load(file)}
    seen.rename(folder / f"seen by {cask}")
    return rows


def test_ray_and_serial_give_equal_objects_and_show_equal_rows(tmp_path: Path, ray_cluster: None) -> None:
    write_rows(tmp_path, unreadable=(5, 77))
    serial = run(tmp_path, "serial", {"kind": "serial"})
    assert run(tmp_path, "ray", RAY) == serial
    assert objects_of(tmp_path / "ray") == objects_of(tmp_path / "serial")
    assert sum("/v0002/" in key for key in objects_of(tmp_path / "ray")) > 8
    # And the student's batches are of these very rows.
    rows = {"kind": "arrays", "inputs": str(tmp_path / "inputs.npy"), "labels": str(tmp_path / "labels.npy")}
    batches = student.loader(
        str(tmp_path / "ray"), inputs=rows, augmentation=VIEWS, epochs=3, batch_size=50, temperature=2.0
    )
    assert {row.numpy().tobytes() for batch in batches for row in batch.inputs} == serial
