"""What an importer is: someone else's file of logits, read by position and checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.sparse import TopRows
from softcask.pipeline.weights import file_digest
from softcask.storage_schemas.errors import ExchangeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is imported, as the user names it.

    Attributes:
        path: File or folder on this machine.
        classes: C, where the format does not say it.
        top_k: Classes a row, where the format does not say it.
        settings: File that says how the others are to be read.
        ids: File of sample ids.
        labels: File of class indices.
        id_prefix: Start of ids that are made of positions.
    """

    path: Path
    classes: int | None = None
    top_k: int | None = None
    settings: Path | None = None
    ids: Path | None = None
    labels: Path | None = None
    id_prefix: str | None = None

    def refuse_unused(self, name: str, *used: str) -> None:
        """Refuse an option that means nothing to a format.

        Raises:
            ExchangeError: One is given that is not among `used`.
        """
        for field in fields(self):
            if field.name not in ("path", "classes", *used) and getattr(self, field.name) is not None:
                raise ExchangeError(f"--{field.name.replace('_', '-')} means nothing to format {name!r}")

    def needed_classes(self, name: str) -> int:
        """C, of a format that does not say it.

        Raises:
            ExchangeError: Nobody says it.
        """
        if self.classes is None:
            raise ExchangeError(
                f"format {name!r} does not say how many classes there are; give --classes or --class-names"
            )
        return self.classes


class ForeignLogits(Protocol):
    """Rows of logits that another program wrote; read by one thread."""

    @property
    def num_classes(self) -> int:
        """C."""

    @property
    def top_k(self) -> int | None:
        """Classes a row that are known; None where all are."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What these logits cannot give, in words; recorded with the entry."""

    def sample_ids(self) -> pa.Array:
        """Ids of all rows, in order."""

    def labels(self) -> NDArray[np.int64] | None:
        """Class indices of all rows, -1 where a row has none; None where none has."""

    def read(self, positions_B: NDArray[np.int64]) -> TopRows | NDArray[np.float32]:
        """The rows at these positions: checked ones of `top_k` classes, or logits `[B, C]` of all.

        Raises:
            ExchangeError: A row that no writer of this format gives; names file and row.
        """

    def describe(self) -> dict[str, Any]:
        """What identifies these rows: the files by content, and the options that matter."""


Opener = Callable[[Source], ForeignLogits]
"""Opens a source: reads headers and ids, checks lengths.

Raises:
    ExchangeError: It is not of this format, or an option is missing or means nothing.
"""


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of files by the name that they are told by."""
    return {name: file_digest(str(path)) for name, path in sorted(files.items())}


def existing(path: Path, what: str) -> Path:
    """The path itself, if something stands there.

    Raises:
        ExchangeError: Nothing does.
    """
    if not path.exists():
        raise ExchangeError(f"{path}: no such {what}")
    return path
