"""What travels with a job: everything that the run needs, nothing that it does not."""

from __future__ import annotations

import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.conftest import Project

from softcask.jobs.submission import luggage, packing
from softcask.jobs.submission.packing import Package, pack
from softcask.pipeline.precompute.config import load_run
from softcask.storage_schemas.errors import ConfigError

OWN = {"python_path": ["code"], "store.uri": "cask"}
"""In place of the test suite's own folder: the project's code lies beside it."""


@pytest.fixture
def own(project: Project) -> Project:
    code = project.folder / "code"
    code.mkdir()
    (code / "models.py").write_text("WIDTH = 3\n")
    (code / "vocabulary.txt").write_text("ant\n")
    return project


def names(package: Package) -> list[str]:
    return [each.name for each in package.sent]


def tables(package: Package) -> Any:
    return tomllib.loads(package.text)


def test_code_and_named_files_travel_under_the_names_that_they_have(own: Project) -> None:
    package = pack(own.run, OWN)
    assert names(package) == ["code/models.py", "code/vocabulary.txt", "inputs.npy", "labels.npy"]
    assert tables(package)["transfer_set"]["inputs"] == "inputs.npy"
    assert tables(package)["python_path"] == ["code"]


def test_overrides_are_put_in_and_the_cluster_is_the_jobs_own(own: Project) -> None:
    said = tables(pack(own.run, OWN | {"teachers[1].kwargs": {"seed": 7}, "executor.address": "local"}))
    assert said["teachers"][1]["kwargs"] == {"seed": 7}
    assert said["executor"]["address"] == "auto"


def test_the_store_stays_where_it_is_and_does_not_travel(own: Project) -> None:
    (own.folder / "code" / "old").mkdir()
    (own.folder / "code" / "old" / "softcask.json").write_text("{}")
    package = pack(own.run, {**OWN, "store.uri": "code/new"})
    assert tables(package)["store"]["uri"] == str(own.folder / "code" / "new")
    assert not any("old" in name for name in names(package))
    assert (
        tables(pack(own.run, OWN | {"store.uri": "s3://bucket/cask"}))["store"]["uri"] == "s3://bucket/cask"
    )


def test_the_run_means_the_same_where_it_is_unpacked(own: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    (elsewhere / "lib").mkdir(parents=True)
    (elsewhere / "lib" / "helper.py").write_text("")
    (own.folder / "inputs.npy").rename(elsewhere / "inputs.npy")
    changes = {
        "python_path": ["code", str(elsewhere / "lib")],
        "transfer_set.inputs": str(elsewhere / "inputs.npy"),
    }
    package = pack(own.run, OWN | changes)
    unpacked = tmp_path / "there"
    package.write(tmp_path / "package.zip")
    zipfile.ZipFile(tmp_path / "package.zip").extractall(unpacked)
    there = load_run(unpacked / "run.toml")
    here = load_run(own.run, OWN | changes)
    assert there.classes == here.classes and there.store == here.store and there.teachers == here.teachers
    assert [sorted(each.name for each in Path(folder).iterdir()) for folder in there.python_path] == [
        ["models.py", "vocabulary.txt"],
        ["helper.py"],
    ]
    for role in ("inputs", "labels"):
        ours, theirs = (Path(getattr(run.transfer_set, role)) for run in (here, there))
        assert theirs.is_relative_to(unpacked)
        assert (theirs.name, theirs.read_bytes()) == (ours.name, ours.read_bytes())


def test_equal_runs_are_equal_bytes_whenever_their_files_were_written(own: Project, tmp_path: Path) -> None:
    first = pack(own.run, OWN)
    first.write(tmp_path / "first.zip")
    digest = first.digest()
    code = own.folder / "code" / "models.py"
    code.write_text(code.read_text())
    second = pack(own.run, OWN)
    second.write(tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert second.digest() == digest
    code.write_text("WIDTH = 4\n")
    assert pack(own.run, OWN).digest() != digest
    assert pack(own.run, OWN | {"store.stats": False}).digest() != digest


def test_beside_code_what_git_ignores_and_what_is_hidden_or_large_stays(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = own.folder / "code"
    subprocess.run(["git", "init", "-q", str(own.folder)], check=True)
    (own.folder / ".gitignore").write_text("secrets.py\n*.npy\n")
    (code / "secrets.py").write_text("")
    (code / ".env").write_text("")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "models.pyc").write_text("")
    (code / "data.bin").write_bytes(bytes(101))
    monkeypatch.setattr(luggage, "_LARGEST_OF_CODE", 100)
    package = pack(own.run, OWN)
    # Of the rows, too, git says that they are ignored; but the run names them.
    assert names(package) == ["code/models.py", "code/vocabulary.txt", "inputs.npy", "labels.npy"]
    assert {each.source.name: each.reason for each in package.left} == {
        "secrets.py": "git ignores it",
        "data.bin": "101 B, and the run does not name it",
    }


def test_a_folder_that_git_ignores_as_a_whole_travels_when_the_run_names_it(own: Project) -> None:
    subprocess.run(["git", "init", "-q", str(own.folder)], check=True)
    (own.folder / ".gitignore").write_text("code\n")
    assert "code/models.py" in names(pack(own.run, OWN))


def test_linked_folders_travel_once_and_a_loop_ends(own: Project, tmp_path: Path) -> None:
    package = own.folder / "code" / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loop").symlink_to(own.folder / "code")
    (own.folder / "code" / "dangling").symlink_to(tmp_path / "nowhere")
    assert [name for name in names(pack(own.run, OWN)) if name.startswith("code")] == [
        "code/models.py",
        "code/package/__init__.py",
        "code/vocabulary.txt",
    ]


def test_a_path_travels_where_it_stands_for_a_list_of_one_too(own: Project, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    for number in range(3):
        (rows / f"part-{number:02d}.parquet").write_bytes(b"")
    text = Path(own.run).read_text()
    head, _, rest = text.partition("[transfer_set]")
    section = (
        '[transfer_set]\nkind = "parquet"\npath = "rows/part-{01..02}.parquet"\ninput = "x"\n\n[classes]'
    )
    Path(own.run).write_text(head + section + rest.partition("[classes]")[2])
    package = pack(own.run, OWN)
    assert tables(package)["transfer_set"]["path"] == "rows/part-{01..02}.parquet"
    assert [name for name in names(package) if "part" in name] == [
        "rows/part-01.parquet",
        "rows/part-02.parquet",
    ]
    moved = pack(own.run, OWN | {"transfer_set.path": [str(rows), "/there/*.parquet", "s3://b/c.parquet"]})
    assert tables(moved)["transfer_set"]["path"] == ["rows", "/there/*.parquet", "s3://b/c.parquet"]
    alone = pack(own.run, OWN | {"transfer_set.path": "/there/*.parquet"})
    assert tables(alone)["transfer_set"]["path"] == "/there/*.parquet"
    with pytest.raises(ConfigError, match=r"transfer_set.path\[0\]: .*gone-\*.parquet: no such file"):
        pack(own.run, OWN | {"transfer_set.path": "gone-*.parquet"})


def test_a_path_that_only_the_cluster_has_is_left_to_it(own: Project) -> None:
    package = pack(own.run, OWN | {"transfer_set.inputs": "/only/there/inputs.npy"})
    assert package.not_sent == ((("transfer_set", "inputs"), Path("/only/there/inputs.npy")),)
    assert tables(package)["transfer_set"]["inputs"] == "/only/there/inputs.npy"


def test_what_lies_on_a_shared_disk_is_not_sent(own: Project) -> None:
    package = pack(own.run, OWN | {"executor.shared_paths": [str(own.folder)]})
    assert names(package) == []
    assert tables(package)["transfer_set"]["inputs"] == str(own.folder / "inputs.npy")
    assert tables(package)["python_path"] == [str(own.folder / "code")]


def test_a_missing_file_is_named_with_its_place(own: Project) -> None:
    with pytest.raises(ConfigError, match=r"transfer_set.labels: .*/gone.npy: no such file or folder"):
        pack(own.run, OWN | {"transfer_set.labels": "gone.npy"})


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 10_000), ("_MOST_FILES", 3)])
def test_too_much_is_refused_with_what_is_large_and_what_to_do(
    own: Project, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(packing, limit, value)
    with pytest.raises(ConfigError, match=r"4 files of 2\d\.\d KiB would travel.*\n.*inputs.npy") as raised:
        pack(own.run, OWN)
    assert "s3://" in str(raised.value) and "executor.shared_paths" in str(raised.value)


def test_a_folder_of_more_files_than_anyone_would_send_is_not_walked_to_its_end(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(luggage, "_MOST_SEEN", 2)
    with pytest.raises(ConfigError, match="code and the folders beside it hold more than 2 files"):
        pack(own.run, OWN)
