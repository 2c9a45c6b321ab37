"""Which files a path stands for: one, those of a folder, of a pattern or of a range, in a settled order."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from softcask.pipeline.transfer_sets.files import change_marks, facts_unless_folder, file_name, told
from softcask.storage_schemas.errors import TransferSetError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_DIGITS = re.compile(r"(\d+)")
_MOST_IN_RANGE = 1_000_000
_REQUESTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FileList:
    """Files that a source reads, in order.

    Attributes:
        urls: Where each lies.
        names: Each one's path within what was named, its parts joined by "/"; the file's name alone where a
            single file was named.
        facts: What tells one state of them from another, JSON-able and without a folder.
    """

    urls: tuple[str, ...]
    names: tuple[str, ...]
    facts: Mapping[str, Any]


def list_files(paths: Sequence[str], endings: tuple[str, ...], *, name: str | None = None) -> FileList:
    """The files that paths stand for.

    Args:
        paths: Each a file, a folder (its files with one of the endings, at any depth, but nothing whose name
            begins with a dot), or a pattern; `{000..123}` stands for each number of the range. Local, or
            URLs of fsspec. Links to files are followed, links to folders are not.
        endings: What names of files end in, lower case, with the dot.
        name: What they are called together, if not as `paths` are.

    Returns:
        In the order of `paths`; within a folder or pattern by name, `part-2` before `part-10`.

    Raises:
        TransferSetError: A path where nothing stands, or no such file in it; a file that is named twice.
    """
    spelled = [url for path in paths for url in spelled_out(path)]
    if len(spelled) == 1 and (facts := _single(spelled[0])) is not None:
        return FileList(urls=(spelled[0],), names=(file_name(spelled[0]),), facts=facts)
    with ThreadPoolExecutor(_REQUESTS) as threads:
        found = [file for part in threads.map(lambda url: _found(url, endings), spelled) for file in part]
    urls = tuple(url for url, _, _ in found)
    if (twice := Counter(urls).most_common(1)[0])[1] > 1:
        raise TransferSetError(f"{twice[0]}: named twice; expected each file once; look at the paths")
    names = tuple(name for _, name, _ in found) if len(spelled) == 1 else _without_folder(urls)
    marks = zip(names, (marks for _, _, marks in found), strict=True)
    return FileList(urls=urls, names=names, facts=listing_facts(name or _folder_name(paths), marks))


def listing_facts(name: str, marks: Iterable[tuple[str, Sequence[object]]]) -> dict[str, Any]:
    """Facts about many files as few: their number, their bytes, a digest of all names, sizes and times.

    Args:
        name: What they are called together.
        marks: Of each file, its name and what tells its version, the size first.
    """
    digest, count, total = sha256(), 0, 0
    for each, (size, *rest) in marks:
        digest.update(repr((each, size, *rest)).encode("utf-8", "surrogateescape"))
        count, total = count + 1, total + int(str(size or 0))
    return {"name": name, "count": count, "bytes": total, "listing": digest.hexdigest()}


def by_number(name: str) -> list[tuple[int, str]]:
    """Key to sort names by, in which runs of digits count as numbers."""
    parts = _DIGITS.split(name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def spelled_out(path: str) -> Iterator[str]:
    """The path for each number of its ranges, `part-{000..123}`; itself where it has none.

    Raises:
        TransferSetError: A range that is empty, or longer than anyone means.
    """
    found = _RANGE.search(path)
    if found is None:
        yield path
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_IN_RANGE:
        raise TransferSetError(f"{path}: the range {found[0]} is empty or too long; expected {{first..last}}")
    for number in range(first, last + 1):
        yield from spelled_out(f"{path[: found.start()]}{number:0{len(found[1])}d}{path[found.end() :]}")


def _single(url: str) -> dict[str, Any] | None:
    """Facts of a file; None for a folder or pattern."""
    return None if _is_pattern(url) else facts_unless_folder(url)


def _found(url: str, endings: tuple[str, ...]) -> list[tuple[str, str, Sequence[object]]]:
    """Of each file: its URL, its name, its size and what else marks a version."""
    if (facts := _single(url)) is not None:
        return [(url, file_name(url), tuple(value for key, value in facts.items() if key != "name"))]
    with told(url):
        filesystem, path = fsspec.url_to_fs(url)
        local = isinstance(filesystem, LocalFileSystem)
        infos = _local_infos(path) if local else _remote_infos(filesystem, path)
    base = _base(path)
    kept = [
        (_url_of(filesystem, url, path, each), each.removeprefix(base), marks)
        for each, marks in infos.items()
        if each.lower().endswith(endings) and not _is_hidden(each.removeprefix(base))
    ]
    if not kept:
        raise TransferSetError(f"{url}: no file that ends in {' or '.join(endings)}; check the path")
    return sorted(kept, key=lambda file: by_number(file[1]))


def _local_infos(path: str) -> dict[str, Sequence[object]]:
    if Path(path).is_dir():
        files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]  # noqa: PTH118
    else:
        files = [name for name in glob.glob(path, recursive=True) if not Path(name).is_dir()]  # noqa: PTH207
    with ThreadPoolExecutor(_REQUESTS) as threads:
        states = list(threads.map(os.stat, files))
    return {file: (state.st_size, state.st_mtime_ns) for file, state in zip(files, states, strict=True)}


def _remote_infos(filesystem: Any, path: str) -> dict[str, Sequence[object]]:
    filesystem.invalidate_cache()  # what a listing told before is not what stands there now
    look: Callable[..., Any] = filesystem.glob if _is_pattern(path) else filesystem.find
    infos = look(path, detail=True)
    return {
        name: (info.get("size"), *change_marks(info).values())
        for name, info in infos.items()
        if info.get("type") != "directory"
    }


def _is_pattern(url: str) -> bool:
    signs = "*[" if "://" in url else "*?["
    if not any(sign in url for sign in signs):
        return False
    return "://" in url or not Path(url).exists()


def _base(path: str) -> str:
    """What the paths of all files begin with: a folder, or the part of a pattern before its first sign."""
    signs = [path.index(sign) for sign in "*?[" if sign in path] if _is_pattern(path) else []
    return path[: min(signs)].rpartition("/")[0] + "/" if signs else path.rstrip("/") + "/"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _url_of(filesystem: Any, url: str, path: str, found: str) -> str:
    if isinstance(filesystem, LocalFileSystem):
        return found
    if url.endswith(path):  # also of a chain, `simplecache::s3://bucket/folder`
        return url.removesuffix(path) + found
    return str(filesystem.unstrip_protocol(found))


def _without_folder(urls: Sequence[str]) -> tuple[str, ...]:
    """The URLs without the folder that all lie in."""
    folders = [url.rpartition("/")[0].split("/") for url in urls]
    common = next((n for n, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), None)
    shared = "/".join(folders[0][: min(map(len, folders)) if common is None else common])
    return tuple(url.removeprefix(f"{shared}/") for url in urls)


def _folder_name(paths: Sequence[str]) -> str:
    return file_name(paths[0].rstrip("/")) if len(paths) == 1 else f"{len(paths)} paths"
