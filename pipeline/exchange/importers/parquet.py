"""Top-k targets as plain Parquet: what any program can write, and what `softcask export --top-k` writes.

Columns: `sample_id`; `indices` (or `classes`), a list of class indices; `logprobs`, a list of natural
log-probabilities at T=1 (or `probabilities`), as long; if there is one, `tail_logprob`, the log of the
probability of all other classes; if there is one, `label`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.exchange.importers.base import Source, digests
from softcask.pipeline.exchange.importers.row_groups import RowGroups, lists_of, parquet_files
from softcask.pipeline.exchange.importers.sparse import TopRows, checked
from softcask.storage_schemas.errors import ExchangeError

NAME = "parquet"
_INDICES = ("indices", "classes")
_VALUES = ("logprobs", "probabilities")
_TAIL, _LABEL, _ID = "tail_logprob", "label", "sample_id"
_LIMITS = ("top-k at T=1: what lies outside is known by its sum alone",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetLogits:
    """Rows of Parquet files; see `ForeignLogits`.

    Attributes:
        num_classes: C.
        top_k: Classes a row.
        rows: The files' rows.
        columns: The columns that are read: indices, values, the tail if there is one.
        ids: Ids of all rows.
        classes_N: Labels of all rows, if there are any.
    """

    num_classes: int
    top_k: int
    rows: RowGroups
    columns: tuple[str, ...]
    ids: pa.Array
    classes_N: NDArray[np.int64] | None

    @property
    def limits(self) -> tuple[str, ...]:
        """See `ForeignLogits`."""
        return _LIMITS

    def sample_ids(self) -> pa.Array:
        """The column `sample_id`."""
        return self.ids

    def labels(self) -> NDArray[np.int64] | None:
        """The column `label`."""
        return self.classes_N

    def read(self, positions_B: NDArray[np.int64]) -> TopRows:
        """See `ForeignLogits`."""
        table = self.rows.take(positions_B, self.columns)

        def place(row: int) -> str:
            return f"{self.rows.place(int(positions_B[row]))} ({self.ids[positions_B[row]]})"

        indices, values, *tail = (table[name] for name in self.columns)
        values_BK = self._matrix(values, self.columns[1], place).astype(np.float64)
        if self.columns[1] == "probabilities":
            with np.errstate(divide="ignore", invalid="ignore"):
                values_BK = np.log(values_BK)
        rows = TopRows(
            classes_BK=self._matrix(indices, self.columns[0], place),
            log_probs_BK=values_BK,
            tail_log_B=tail[0].to_numpy().astype(np.float64) if tail else None,
        )
        return checked(rows, self.num_classes, place)

    def describe(self) -> dict[str, Any]:
        """See `ForeignLogits`."""
        files = {path.name: path for path in self.rows.paths}
        return {"format": NAME, "files": digests(files), "top_k": self.top_k, "classes": self.num_classes}

    def _matrix(self, column: pa.ChunkedArray, name: str, place: Callable[[int], str]) -> NDArray[Any]:
        lengths_B, flat = lists_of(column, name, place)
        for row in np.flatnonzero(lengths_B != self.top_k)[:1].tolist():
            raise ExchangeError(
                f"{place(row)} has {lengths_B[row]} {name}, expected {self.top_k} as in the first row; all "
                "rows must have as many"
            )
        return flat.reshape(len(lengths_B), self.top_k)


def open_parquet(source: Source) -> ParquetLogits:
    """Open a file or a folder of files.

    Raises:
        ExchangeError: No Parquet, a column is missing, or the numbers are of another temperature than 1.
    """
    source.refuse_unused(NAME)
    classes = source.needed_classes(NAME)
    rows = RowGroups.of(parquet_files(source.path))
    if not len(rows):
        raise ExchangeError(f"{source.path}: no rows; expected at least one")
    indices, values = (_column(rows, names) for names in (_INDICES, _VALUES))
    for path in rows.paths:
        _refuse_other_temperature(path, rows.schema(path))
    tail = (_TAIL,) if _TAIL in _shared(rows) else ()
    lengths, _ = lists_of(rows.take(np.array([0]), [indices])[indices], indices, rows.place)
    if not 1 <= lengths[0] <= classes:
        raise ExchangeError(f"{rows.place(0)} has {lengths[0]} {indices}, expected 1 to {classes}")
    return ParquetLogits(
        num_classes=classes,
        top_k=int(lengths[0]),
        rows=rows,
        columns=(indices, values, *tail),
        ids=_ids(rows),
        classes_N=_labels(rows) if _LABEL in _shared(rows) else None,
    )


def _shared(rows: RowGroups) -> set[str]:
    """Columns that all files have."""
    return set.intersection(*(set(rows.schema(path).names) for path in rows.paths))


def _column(rows: RowGroups, names: tuple[str, ...]) -> str:
    shared = _shared(rows)
    if found := next((name for name in names if name in shared), None):
        return found
    raise ExchangeError(
        f"{rows.paths[0]}: found the columns {', '.join(sorted(shared)) or 'none'}, expected {_ID}, "
        f"{' or '.join(_INDICES)}, {' or '.join(_VALUES)}"
    )


def _whole(rows: RowGroups, name: str) -> pa.ChunkedArray:
    parts = [rows.read(group, [name])[name] for group in range(len(rows.groups))]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def _ids(rows: RowGroups) -> pa.Array:
    name = _column(rows, (_ID,))
    ids = _whole(rows, name)
    if ids.null_count:
        raise ExchangeError(
            f"{rows.paths[0].parent}: {ids.null_count} rows without {name}; expected one each"
        )
    return ids.cast(pa.string()).combine_chunks()


def _labels(rows: RowGroups) -> NDArray[np.int64]:
    labels = _whole(rows, _LABEL)
    if not pa.types.is_integer(labels.type):
        raise ExchangeError(f"{rows.paths[0].parent}: labels of type {labels.type}, expected class indices")
    classes_N: NDArray[np.int64] = pc.fill_null(labels.cast(pa.int64()), -1).to_numpy()
    return classes_N


def _refuse_other_temperature(path: Path, schema: pa.Schema) -> None:
    """Of a file that `softcask export` wrote."""
    try:
        facts = json.loads((schema.metadata or {}).get(b"softcask", b"{}"))
    except ValueError:
        return
    if isinstance(facts, dict) and facts.get("temperature") not in (None, 1.0):
        raise ExchangeError(
            f"{path} was exported at temperature {facts['temperature']}; expected probabilities at T=1, from "
            "which other temperatures can be told"
        )
