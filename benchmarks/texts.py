"""English text that lies on most machines, for teachers that need some.

What Debian packages document below `/usr/share/doc`, and the topics of Python's own manual, which every
CPython ships. A `Document` knows its group (the package it came with), so that text to be judged on comes
from other groups than text to fit on, and a package with hundreds of release notes does not outweigh others.
"""

from __future__ import annotations

import gzip
import hashlib
import pydoc_data.topics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN = Path("/usr/share/doc")
NAMES = ("readme", "news", "faq", "howto")
SUFFIXES = (".txt", ".md", ".rst", ".txt.gz", ".md.gz")
MOST_A_GROUP = 6
LEAST_CHARACTERS = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text, and the group (its package) that it came with."""

    name: str
    group: str
    text: str


def documents(files: Iterable[Path] = ()) -> list[Document]:
    """English documents in an order that depends on their names alone; not two of one text.

    Args:
        files: Text files to take instead of the machine's own documentation; each is a group of its own.
    """
    found = [Document(name=str(path), group=str(path), text=_read(path)) for path in files]
    if not found:
        found = [*_debian(), *_python_topics()]
    seen: set[str] = set()
    groups: Counter[str] = Counter()
    kept = []
    for document in sorted(found, key=lambda document: _hash(document.name)):
        start = document.text[:500]
        if start in seen or groups[document.group] == MOST_A_GROUP or not _is_prose(document.text):
            continue
        seen.add(start)
        groups[document.group] += 1
        kept.append(document)
    return kept


def split(found: Iterable[Document], heldout_share: float = 0.2) -> tuple[list[Document], list[Document]]:
    """Documents to fit on and documents to judge on; a group lies on one side as a whole."""
    fit, judge = [], []
    for document in found:
        heldout = int(_hash("split " + document.group)[:8], 16) < heldout_share * 16**8
        (judge if heldout else fit).append(document)
    return fit, judge


def _debian() -> Iterator[Document]:
    for path in sorted(DEBIAN.rglob("*")) if DEBIAN.is_dir() else ():
        name = path.name.lower()
        wanted = name.startswith(NAMES) or name.endswith(SUFFIXES)
        if wanted and not path.is_symlink() and path.is_file() and "copyright" not in name:
            relative = path.relative_to(DEBIAN)
            yield Document(name=str(relative), group=relative.parts[0], text=_read(path))


def _python_topics() -> Iterator[Document]:
    for topic, text in pydoc_data.topics.topics.items():
        yield Document(name=f"pydoc {topic}", group=f"pydoc {topic}", text=text)


def _read(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode("utf-8", errors="replace")


def _is_prose(text: str) -> bool:
    """Long enough, mostly letters and spaces, and English by its commonest word."""
    sample = text[:20_000]
    letters = sum((c.isalpha() and c.isascii()) or c.isspace() for c in sample)
    the = sample.lower().count(" the ")
    return len(text) >= LEAST_CHARACTERS and letters > 0.78 * len(sample) and the > len(sample) / 1_000


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
