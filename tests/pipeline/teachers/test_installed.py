from __future__ import annotations

import sys
from pathlib import Path

import pytest

from softcask.pipeline.teachers.installed import required
from softcask.storage_schemas.errors import TeacherError


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a library `toy_library`, which no other test imports."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "toy_library", None)  # so that it is forgotten afterwards
    monkeypatch.delitem(sys.modules, "toy_library")
    return tmp_path / "toy_library.py"


def test_a_library_that_is_here_is_imported(library: Path) -> None:
    library.write_text("answer = 42\n")
    assert required("toy_library", extra="toys").answer == 42


def test_one_that_is_not_installed_is_missed_with_the_extra_that_brings_it() -> None:
    with pytest.raises(TeacherError) as caught:
        required("toy_nowhere.part", extra="toys")
    assert str(caught.value) == (
        "toy_nowhere is not installed here: pip install 'softcask[toys]', on workers, too"
    )


def test_one_that_needs_another_names_both(library: Path) -> None:
    library.write_text("import toy_nowhere.part\n")
    with pytest.raises(TeacherError, match="^toy_nowhere is not installed here, which toy_library needs:"):
        required("toy_library", extra="toys")


def test_one_that_does_not_fit_what_is_beside_it_says_so_and_what_it_said(library: Path) -> None:
    library.write_text("raise RuntimeError('operator toy::nms does not exist\\nand more')\n")
    with pytest.raises(TeacherError) as caught:
        required("toy_library", extra="toys")
    message = str(caught.value)
    said = "RuntimeError: operator toy::nms does not exist"
    assert message.startswith(f"toy_library is installed here and cannot be imported ({said})")
    assert "builds for this very torch" in message
    assert isinstance(caught.value.__cause__, RuntimeError)
