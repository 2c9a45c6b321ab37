"""A student file over the project's store, and the project's fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.jobs.conftest import STUDENT_FILE, Project, one_thread, project, softcask

__all__ = ["Project", "one_thread", "project", "softcask", "student"]

STUDENT = f"""{STUDENT_FILE}
[loss]
kind = "distillation"

[training]
epochs = 2
batch_size = 64
dtype = "float32"
"""


@pytest.fixture
def student(tmp_path: Path) -> Path:
    path = tmp_path / "student.toml"
    path.write_text(STUDENT)
    return path
