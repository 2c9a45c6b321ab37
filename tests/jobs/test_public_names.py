"""What `import softcask` gives, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from tests.stores import sealed_store

import softcask


def test_importing_softcask_imports_nothing_else() -> None:
    code = "import json, sys, softcask; print(json.dumps([n for n in sys.modules if 'softcask.' in n]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_is_there_and_is_listed() -> None:
    for name in softcask.__all__:
        assert getattr(softcask, name) is not None
        assert name in dir(softcask)
    assert softcask.__version__ == version("softcask")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'precomptue'"):
        softcask.precomptue  # type: ignore[attr-defined]  # noqa: B018


def test_a_store_is_opened_and_read_as_soft_targets(tmp_path: Path) -> None:
    made = sealed_store(str(tmp_path / "cask"))
    store = softcask.open(made.objects.uri)
    assert isinstance(store, softcask.Store)
    members = [made.readable_logits(name).astype(np.float64) / 4 for name in ("alpha", "beta")]
    exponentials = [np.exp(logits - logits.max(1, keepdims=True)) for logits in members]
    expected = sum(each / each.sum(1, keepdims=True) for each in exponentials) / 2
    found = softcask.SoftTargets(store).probabilities(np.arange(19), 4.0)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # fp16


def test_errors_have_one_base(tmp_path: Path) -> None:
    with pytest.raises(softcask.SoftcaskError, match="there is no softcask store"):
        softcask.open(str(tmp_path / "none"))
    with pytest.raises(softcask.SoftcaskError, match="no such file"):
        softcask.load_run(tmp_path / "none.toml")
    with pytest.raises(softcask.SoftcaskError, match="no such file"):
        softcask.load_student(tmp_path / "none.toml")
