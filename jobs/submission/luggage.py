"""Collects files for a package: those that a run names, and folders of the user's own code."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from softcask.jobs.console import size
from softcask.pipeline.transfer_sets.listing import spelled_out
from softcask.storage_schemas.errors import ConfigError

_OUTSIDE = "softcask-outside"
_LARGEST_OF_CODE = 10 * 2**20
_MOST_SEEN = 50_000
_BY_TOOLS = {"__pycache__", "node_modules", "venv"}


@dataclass(frozen=True, slots=True, order=True)
class Sent:
    """A file that travels.

    Attributes:
        name: Its path in the package, with slashes.
        source: Where it is.
        size: Bytes.
    """

    name: str
    source: Path
    size: int


@dataclass(frozen=True, slots=True)
class Left:
    """A file or folder in a folder of code that stays behind.

    Attributes:
        source: Where it is.
        reason: Why.
    """

    source: Path
    reason: str


class Luggage:
    """What was taken so far.

    Attributes:
        left: What stays behind, as it was met.
    """

    def __init__(self, folder: Path, *, leave: Sequence[Path] = ()) -> None:
        """Start with nothing.

        Args:
            folder: What the package mirrors; what lies elsewhere gets a folder of its own in the package.
            leave: Files and folders that stay behind without a word.
        """
        self.left: list[Left] = []
        self._folder = folder
        self._leave = frozenset(leave)
        self._sent: dict[str, Sent] = {}
        self._outside: dict[Path, str] = {}

    def sent(self) -> tuple[Sent, ...]:
        """Every file that was taken, by name."""
        return tuple(sorted(self._sent.values()))

    def finds(self, path: Path) -> bool:
        """Whether there is such a file, folder, or any file of such a pattern."""
        return path.exists() or next(_matches(path), None) is not None

    def take(self, path: Path, *, as_code: bool) -> str:
        """Take a file, a folder, or the files of a pattern; what it is called in the package.

        Args:
            path: What to take; it is there.
            as_code: It is a folder of code: stores, hidden and large files, what git ignores stay behind.

        Raises:
            ConfigError: It holds more files than anyone would send.
        """
        if not path.exists():
            start = _before_pattern(path)
            name = self._name(start)
            for each in _matches(path):
                self._add(each, f"{name}/{each.relative_to(start).as_posix()}")
            return f"{name}/{path.relative_to(start).as_posix()}"
        name = self._name(path)
        if path.is_file():
            self._add(path, name)
            return name
        files = list(_files(path, seen=set(), as_code=as_code))
        for file in self._of_code(path, files) if as_code else files:
            self._add(file, f"{name}/{file.relative_to(path).as_posix()}")
        return name

    def _add(self, file: Path, name: str) -> None:
        name = name.removeprefix("./")
        if file not in self._leave:
            self._sent[name] = Sent(name, file, file.stat().st_size)

    def _name(self, path: Path) -> str:
        path = Path(os.path.normpath(path))
        if path.is_relative_to(self._folder):
            return path.relative_to(self._folder).as_posix()
        for known, name in self._outside.items():
            if path.is_relative_to(known):
                return f"{name}/{path.relative_to(known).as_posix()}".removesuffix("/.")
        name = self._outside[path] = f"{_OUTSIDE}/{len(self._outside)}/{path.name}"
        return name

    def _of_code(self, folder: Path, files: list[Path]) -> Iterator[Path]:
        ignored = _ignored_by_git(folder, files)
        for file in files:
            if any(leave in (file, *file.parents) for leave in self._leave):
                continue
            if file in ignored:
                self.left.append(Left(file, "git ignores it"))
            elif file.stat().st_size > _LARGEST_OF_CODE:
                reason = f"{size(file.stat().st_size)}, and the run does not name it"
                self.left.append(Left(file, reason))
            else:
                yield file


def _files(folder: Path, *, seen: set[Path], as_code: bool) -> Iterator[Path]:
    """Files below a folder, links followed once; of code without what is hidden, and what tools made."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for entry in sorted(folder.iterdir()):
        if as_code and (entry.name.startswith(".") or entry.name in _BY_TOOLS):
            continue
        if entry.is_dir():
            if not (as_code and (entry / "softcask.json").exists()):
                yield from _files(entry, seen=seen, as_code=as_code)
        elif entry.is_file():
            seen.add(entry)
            if len(seen) > _MOST_SEEN:
                raise ConfigError(
                    f"{folder} and the folders beside it hold more than {_MOST_SEEN:,} files, too many to "
                    "send with a job. Put code in a folder of its own, which python_path names, and data "
                    "at a URL or on a disk that every node sees (executor.shared_paths)"
                )
            yield entry


def _ignored_by_git(folder: Path, files: list[Path]) -> set[Path]:
    """Which of the files git would not track; none where there is no git, or it ignores the folder itself."""
    git = shutil.which("git")

    def answer(*command: str, told: Sequence[Path] = ()) -> list[str]:
        ask = [str(git), "-C", str(folder), *command]
        sent = b"\0".join(os.fsencode(path) for path in told)
        answered = subprocess.run(ask, input=sent, capture_output=True, check=False).stdout
        return [os.fsdecode(line) for line in answered.replace(b"\n", b"\0").split(b"\0") if line]

    root = answer("rev-parse", "--show-toplevel") if git else []
    if not root:
        return set()
    # By their real names: git answers for no path behind a link, nor for one outside its repository.
    real = {file.resolve(): file for file in files if file.resolve().is_relative_to(root[0])}
    ignored = answer("check-ignore", "-z", "--stdin", told=[folder.resolve(), *real])
    return set() if str(folder.resolve()) in ignored else {real[Path(path)] for path in ignored}


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) or list(islice(spelled_out(str(path)), 2)) != [str(path)]


def _before_pattern(path: Path) -> Path:
    """The folder that a pattern or range starts from."""
    return next(each for each in path.parents if not _is_pattern(each))


def _matches(path: Path) -> Iterator[Path]:
    """The files of a pattern or range, sorted; none where the path is neither."""
    if _is_pattern(path):
        start = _before_pattern(path)
        found = (start.glob(each) for each in spelled_out(str(path.relative_to(start))))
        yield from sorted(each for part in found for each in part if each.is_file())
