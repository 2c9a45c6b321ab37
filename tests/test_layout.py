"""The house stands as docs/adr/001-layout.md says: links, wheel, bare names, command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pipeline", "jobs", "storage_schemas")


def modules_under(folder: Path, prefix: str) -> set[str]:
    return {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is made of, its links kept as links."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*FOLDERS, "softcask"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture(scope="module")
def wheel_names(tree: Path) -> set[str]:
    """File names in the wheel that is built from the copy, without network."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tree / "dist"),
        str(tree),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tree / "dist").glob("softcask-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("name", FOLDERS)
def test_the_package_reaches_each_top_level_folder_by_a_relative_link(name: str) -> None:
    link = ROOT / "softcask" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert link.resolve() == ROOT / name
    assert (ROOT / name / "__init__.py").is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_wheel_holds_every_module_of_each_top_level_folder(
    name: str, tree: Path, wheel_names: set[str]
) -> None:
    modules = modules_under(tree / name, f"softcask/{name}")
    assert f"softcask/{name}/__init__.py" in modules
    assert modules <= wheel_names


def test_the_wheel_holds_nothing_outside_the_package(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"softcask"}
    assert "softcask/py.typed" in wheel_names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


@pytest.mark.parametrize("statement", ["import {}", "from {} import x", "from {}.deeper import x"])
@pytest.mark.parametrize("name", FOLDERS)
def test_ruff_refuses_the_bare_name_of_a_top_level_folder(name: str, statement: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--select",
        "TID251",
        "--stdin-filename",
        "x.py",
        "-",
    ]
    source = statement.format(name) + "\n"
    checked = subprocess.run(command, input=source, capture_output=True, text=True, cwd=ROOT, check=False)
    assert checked.returncode == 1, checked.stderr
    assert f"softcask.{name}" in checked.stdout


def test_the_softcask_command_is_installed() -> None:
    command = Path(sys.executable).with_name("softcask")
    shown = subprocess.run([str(command), "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "precompute" in shown.stdout
