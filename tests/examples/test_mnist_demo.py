"""The demo's whole way, on Ray, over a slice of its data: the same code, configs and weights."""

from __future__ import annotations

import gzip
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.examples.digits import MNIST as EXAMPLE
from tests.examples.digits import cut_digits


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The demo in a folder of its own, with the first rows of each file."""
    for name in ("run.toml", "student.toml", "models.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    shutil.copytree(EXAMPLE / "weights", tmp_path / "weights")
    cut_digits(tmp_path / "data", train=600, t10k=200)
    spec = importlib.util.spec_from_file_location("mnist_demo", EXAMPLE / "demo.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    return module


def test_the_demo_labels_once_trains_three_students_and_draws_its_picture(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.main()
    first = capsys.readouterr().out
    assert [line.split("│")[-2].strip() for line in first.splitlines() if "labelling" in line] == ["3"]
    assert sum("student," in line for line in first.splitlines()) == 3
    assert (demo.OUT / "soft_targets.png").read_bytes().startswith(b"\x89PNG")

    import softcask

    store = softcask.open(str(demo.OUT / "cask"))
    assert (len(store.rows), sorted(store.teachers)) == (600, ["conv-a", "conv-b", "conv-c"])
    labels = np.frombuffer(
        gzip.decompress((EXAMPLE / "data" / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, 600, 8
    )
    for name in store.teachers:
        # They were trained on these rows; a wrong order of rows or classes would leave one in ten.
        assert (store.logits(name, np.arange(600)).argmax(axis=1) == labels).mean() > 0.98

    again = demo.command("precompute", "run.toml")
    assert [teacher["new_rows"] for teacher in again["teachers"].values()] == [0, 0, 0]
