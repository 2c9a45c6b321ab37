"""What a student's inputs may be: a transfer set, or somebody's own dataset with ids.

Both are seen as rows with ids, read by position, whose content can be told where it is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from softcask.pipeline.config.sections import ByKind
from softcask.pipeline.student.loading.dataset_rows import DatasetRows, Hashes, Ids, ReadRows
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.pipeline.transfer_sets.registry import SOURCES
from softcask.storage_schemas.errors import ConfigError, TransferSetError

_READ_ROWS = 1024


class InputRows(Protocol):
    """Rows by position. Picklable; read by several threads and processes at once."""

    @property
    def row_bytes(self) -> int | None:
        """Bytes of a row, if they are known and rows come as one array; else batches are read one by one."""

    @property
    def known_hashes(self) -> NDArray[np.void] | None:
        """Content hashes of all rows, where they are known without reading."""

    @property
    def tells_content(self) -> bool:
        """Whether rows that are read can be told from others of the same id."""

    def __len__(self) -> int:
        """Rows."""

    def ids(self) -> Sequence[str]:
        """Ids of all rows."""

    def labels(self) -> NDArray[np.int64] | None:
        """Class indices of all rows, -1 where one has none; None where none has."""

    def any_readable(self, positions_N: NDArray[np.int64]) -> bool:
        """Whether any of these rows can be read."""

    def read(self, positions_B: NDArray[np.int64]) -> ReadRows:
        """Rows in this order.

        Raises:
            TransferSetError: One cannot be read.
        """


class TransferSetRows:
    """A transfer set's rows."""

    known_hashes = None
    tells_content = True

    def __init__(self, source: TransferSet) -> None:
        """Rows of an open transfer set."""
        self._source = source
        self.row_bytes = math.prod(source.input_shape) * source.input_dtype.itemsize

    def __len__(self) -> int:
        return len(self._source)

    def ids(self) -> Sequence[str]:
        """See `InputRows`."""
        return self._source.sample_ids(0, len(self))

    def labels(self) -> NDArray[np.int64] | None:
        """See `InputRows`."""
        return self._source.labels(0, len(self))

    def any_readable(self, positions_N: NDArray[np.int64]) -> bool:
        """See `InputRows`."""
        for start in range(0, len(positions_N), _READ_ROWS):
            some = positions_N[start : start + _READ_ROWS]
            if len(self._source.read(some).problems) < len(some):
                return True
        return False

    def read(self, positions_B: NDArray[np.int64]) -> ReadRows:
        """See `InputRows`."""
        batch = self._source.read(positions_B)
        if batch.problems:
            at, reason = next(iter(batch.problems.items()))
            position = int(positions_B[at])
            raise TransferSetError(
                f"{len(batch.problems)} rows that the teachers labelled cannot be read here; the first is "
                f"{self._source.sample_ids(position, position + 1)[0]}: {reason}"
            )
        return ReadRows(values=batch.inputs_B, hashes=lambda: content_hashes(batch.inputs_B))


def input_rows(
    inputs: Any,
    *,
    ids: Ids | None = None,
    hashes: Hashes | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> InputRows | None:
    """What inputs are given, seen as rows.

    Args:
        inputs: An open transfer set; a source of one, or its section as a mapping; a dataset; or None.
        ids: See `DatasetRows`, as the others.
        hashes: ...
        collate: ...

    Raises:
        ConfigError: A section that is not valid.
        TransferSetError: Transfer set or dataset cannot be used, or something is given that it does not take.
    """
    if isinstance(inputs, Mapping):
        inputs = _source(inputs)
    if isinstance(inputs, SourceOptions):
        inputs = inputs.open()
    if inputs is not None and not isinstance(inputs, TransferSet):
        return DatasetRows(inputs, ids=ids, hashes=hashes, collate=collate)
    given = {"ids": ids, "hashes": hashes, "collate": collate}
    if useless := [name for name, value in given.items() if value is not None]:
        what = "there are no inputs" if inputs is None else "a transfer set has its own"
        raise TransferSetError(f"{useless[0]} is given for a dataset's items, but {what}; leave it out")
    return None if inputs is None else TransferSetRows(inputs)


def _source(section: Mapping[str, Any]) -> SourceOptions:
    try:
        source = ByKind(SOURCES).model_for(section).model_validate(section)
    except ValidationError as error:
        raise ConfigError(f"inputs are no valid section [transfer_set]: {error}") from error
    assert isinstance(source, SourceOptions)  # noqa: S101  # what SOURCES holds
    return source
