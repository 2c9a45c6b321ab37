"""What travels with a job: the run file as it is resolved here, the user's own code, the files that it names.

The package is the folder that the job starts in. It mirrors the run file's folder, so that a relative path
means there what it means here. Whoever looks at it (`--dry-run`) sees every file, and what stays behind.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from softcask.jobs.console import size
from softcask.jobs.submission.luggage import Left, Luggage, Sent
from softcask.pipeline.config.local_paths import local_paths
from softcask.pipeline.config.places import Place, show_place
from softcask.pipeline.config.toml import read_tables, replace_at
from softcask.pipeline.config.toml_text import to_toml
from softcask.pipeline.precompute.config import RunConfig, load_run
from softcask.storage_schemas.errors import ConfigError

MOST_BYTES = 100 * 2**20
"""What Ray's job API takes in one request (DASHBOARD_CLIENT_MAX_SIZE in Ray 2.60)."""

_MOST_FILES = 10_000
_SHOWN = 5
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files are the same package, whenever they were written


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A job's folder before it is sent.

    Attributes:
        config: The run as it was validated here.
        run_file: Name of the run file in the package.
        text: What it says there: overrides put in, paths as they are in the package.
        sent: Files that travel beside it.
        left: Files beside the user's code that do not, and why.
        not_sent: Paths that the run names and every node must have by itself, with their places.
    """

    config: RunConfig
    run_file: str
    text: str
    sent: tuple[Sent, ...]
    left: tuple[Left, ...]
    not_sent: tuple[tuple[Place, Path], ...]

    @property
    def bytes(self) -> int:
        """Of all files that travel."""
        return len(self.text.encode()) + sum(each.size for each in self.sent)

    def digest(self) -> str:
        """SHA-256 of names and contents: equal for runs that would do the same with the same code."""
        digest = hashlib.sha256(self.text.encode())
        for each in self.sent:
            with each.source.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"\n{each.name}\0{content}".encode())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the package as a zip file; equal packages are equal bytes, so that Ray sends one once."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(self.run_file, _EPOCH), self.text)
            for each in self.sent:
                archive.writestr(zipfile.ZipInfo(each.name, _EPOCH), each.source.read_bytes())


def pack(run: str | PathLike[str], overrides: Mapping[str, Any]) -> Package:
    """Validate a run here, and find all that must travel for it to run elsewhere.

    Args:
        run: The run file.
        overrides: As `load_run` takes them.

    Raises:
        ConfigError: The run is not valid, names a file that is not there, or more would travel than can.
    """
    config, tables = load_run(run, overrides), read_tables(run, overrides)
    folder = Path(run).absolute().parent
    luggage = Luggage(folder, leave=(Path(run).absolute(), Path(config.store.uri)))
    not_sent: list[tuple[Place, Path]] = []
    for place, path in local_paths(config):
        if place == ("store", "uri"):
            replace_at(tables, place, str(path))  # it must outlive the job's folder
        elif _is_shared(path, config) or (not luggage.finds(path) and _is_absolute(tables, place)):
            not_sent.append((place, path))
            _rename(tables, place, str(path))
        elif not luggage.finds(path):
            raise ConfigError(
                f"{run}: {show_place(place)}: {path}: no such file or folder. What only the cluster has is "
                "named by its path from the root on, or as a URL"
            )
        else:
            _rename(tables, place, luggage.take(path, as_code=place[0] == "python_path"))
    replace_at(tables, ("executor", "address"), "auto")
    package = Package(
        config=config,
        run_file=Path(run).name,
        text=to_toml(tables),
        sent=luggage.sent(),
        left=tuple(luggage.left),
        not_sent=tuple(not_sent),
    )
    _refuse_much(package)
    return package


def _rename(tables: dict[str, Any], place: Place, name: str) -> None:
    if place[0] == "python_path":  # it has a default, and may be missing from the file
        tables.setdefault("python_path", [""])
    stated, _ = _stated(tables, place)
    if stated is not None:
        replace_at(tables, stated, name)


def _is_absolute(tables: dict[str, Any], place: Place) -> bool:
    _, text = _stated(tables, place)
    return Path(text).expanduser().is_absolute()


def _stated(tables: Any, place: Place) -> tuple[Place | None, str]:
    """Where the file states what stands at a place of the config, and as what; None and "" for a default.

    A path may stand alone where the config has a list of them.
    """
    for depth, part in enumerate(place):
        if isinstance(tables, str) and part == 0:
            return place[:depth], tables
        try:
            tables = tables[part]
        except (KeyError, IndexError, TypeError):
            return None, ""
    return (place, tables) if isinstance(tables, str) else (None, "")


def _is_shared(path: Path, config: RunConfig) -> bool:
    return any(path.is_relative_to(folder) for folder in config.executor.shared_paths)


def _refuse_much(package: Package) -> None:
    if package.bytes < MOST_BYTES and len(package.sent) <= _MOST_FILES:
        return
    largest = sorted(package.sent, key=lambda each: -each.size)[:_SHOWN]
    told = "\n  ".join(f"{size(each.size):>10}  {each.source}" for each in largest)
    raise ConfigError(
        f"{len(package.sent):,} files of {size(package.bytes)} would travel with the job; Ray's job API "
        f"takes less than {size(MOST_BYTES)}, and softcask at most {_MOST_FILES:,} files. The largest:\n  "
        f"{told}\nPut data and weights where every node sees them, and name them so: as a URL (s3://...), "
        "or on a network disk whose folder executor.shared_paths lists. Code stands best in a folder of "
        "its own, which python_path names."
    )
