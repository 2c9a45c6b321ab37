"""Settles the identity of a source's rows, once: ids, content hashes, labels, and which rows are unreadable.

What comes out is kept in the store; from then on a row is known by its id, and recognised by its hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.base import RowBatch, TransferSet
from softcask.pipeline.transfer_sets.text import is_text
from softcask.storage_schemas.errors import QuarantineExceeded, TransferSetError
from softcask.storage_schemas.tables import HASH_BYTES, ROWS

_SHOWN = 3
_MOST_ROWS = 4096
_BATCH_BYTES = 64 << 20


def index_rows(
    source: TransferSet,
    *,
    num_classes: int,
    max_quarantined: float,
    batch_rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> pa.Table:
    """Read every row of a source once.

    Args:
        source: Its rows, in order, become the table's.
        num_classes: Labels must be below this; -1 is no label.
        max_quarantined: Share of unreadable rows, 0 to 1, that is tolerated.
        batch_rows: Rows read together; None for as many as 64 MiB hold, up to 4,096.
        progress: Called with the number of rows after each batch.

    Returns:
        A table of `storage_schemas.tables.ROWS`; a quarantined row has a reason and no hash.

    Raises:
        TransferSetError: No rows, ids that repeat, a label out of range, or the source failed.
        QuarantineExceeded: More rows than tolerated were unreadable.
    """
    if not len(source):
        raise TransferSetError(f"{_origin(source)}: no rows; expected at least one")
    batches = []
    for _, batch in identified_batches(
        source, 0, len(source), num_classes=num_classes, batch_rows=batch_rows
    ):
        batches.append(batch)
        if progress is not None:
            progress(batch.num_rows)
    table = pa.Table.from_batches(batches, ROWS).combine_chunks()
    check_rows(table, source, max_quarantined)
    return table


def identified_batches(
    source: TransferSet, start: int, stop: int, *, num_classes: int, batch_rows: int | None = None
) -> Iterator[tuple[RowBatch, pa.RecordBatch]]:
    """Read rows `start:stop` once, and say of each what it is known by.

    Args:
        source: Their source.
        start: First row.
        stop: The row behind the last.
        num_classes: Labels must be below this; -1 is no label.
        batch_rows: Rows read together; None for as many as 64 MiB hold, up to 4,096.

    Yields:
        Rows as they were read, and their part of the table of `storage_schemas.tables.ROWS`.

    Raises:
        TransferSetError: A label out of range, or the source failed.
    """
    step = batch_rows or _rows_a_batch(source)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        ids = list(source.sample_ids(first, last))
        labels = _checked_labels(source, first, last, ids, num_classes)
        read = source.read(np.arange(first, last))
        hashes = content_hashes(read.inputs_B).tolist()
        reasons = [read.problems.get(row) for row in range(last - first)]
        kept = [None if reason else digest for digest, reason in zip(hashes, reasons, strict=True)]
        columns = zip((ids, kept, labels, reasons), ROWS, strict=True)
        yield read, pa.record_batch([pa.array(column, field.type) for column, field in columns], schema=ROWS)


def check_rows(table: pa.Table, source: TransferSet, max_quarantined: float) -> None:
    """Refuse a whole table of rows that cannot be used.

    Raises:
        TransferSetError: Ids that repeat.
        QuarantineExceeded: More rows than tolerated were unreadable.
    """
    _refuse_repeated_ids(table["sample_id"], source)
    unreadable = len(table) - table["quarantine"].null_count
    if unreadable > max_quarantined * len(table):
        refuse_quarantined(table, source, unreadable, len(table), max_quarantined)


def refuse_quarantined(
    table: pa.Table, source: TransferSet, unreadable: int, rows: int, most: float
) -> NoReturn:
    """Say that too many rows are unreadable, with the first of those in a table that has some.

    Raises:
        QuarantineExceeded: Always.
    """
    bad = table.filter(pc.is_valid(table["quarantine"]))
    shown = "; ".join(f"{row['sample_id']!r}: {row['quarantine']}" for row in bad[:_SHOWN].to_pylist())
    raise QuarantineExceeded(
        f"{_origin(source)}: {unreadable} of {rows} rows ({unreadable / rows:.2%}) cannot be read: {shown}; "
        f"expected at most {most:.2%}; repair them or raise transfer_set.max_quarantined"
    )


def content_hashes(inputs_B: NDArray[Any]) -> NDArray[np.void]:
    """A hash of each row's type, shape and content, the same on every machine.

    SHA-256, cut to 16 bytes, of `"{dtype} {shape} "` (`"|u1 [28, 28] "`) and the row's elements in C order,
    all little-endian. Processors have instructions for it: 1.0 us a row of 784 bytes and 87 us one of 150 KB,
    where BLAKE2b took 1.3 and 170. Of text: `"text [] "`, and of each string of the row the number of its
    UTF-8 bytes as an unsigned 8-byte integer, little-endian, and then the bytes.

    Args:
        inputs_B: `[B, *input_shape]`, numbers or text.

    Returns:
        `[B]` of dtype `V16`.
    """
    if is_text(inputs_B.dtype):
        return _text_hashes(inputs_B)
    dtype = inputs_B.dtype.newbyteorder("<")
    row_bytes = math.prod(inputs_B.shape[1:]) * dtype.itemsize
    content = np.ascontiguousarray(inputs_B, dtype).reshape(-1).view(np.uint8).data
    started = sha256(f"{dtype.str} {list(inputs_B.shape[1:])} ".encode())
    digests = bytearray()
    for start in range(0, len(content), row_bytes):
        digest = started.copy()
        digest.update(content[start : start + row_bytes])
        digests += digest.digest()[:HASH_BYTES]
    return np.frombuffer(digests, f"V{HASH_BYTES}")


def _text_hashes(inputs_B: NDArray[Any]) -> NDArray[np.void]:
    started = sha256(f"text {list(inputs_B.shape[1:])} ".encode())
    digests = bytearray()
    for row in inputs_B.reshape(len(inputs_B), math.prod(inputs_B.shape[1:])).tolist():
        digest = started.copy()
        for content in map(str.encode, row):
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        digests += digest.digest()[:HASH_BYTES]
    return np.frombuffer(digests, f"V{HASH_BYTES}")


def _rows_a_batch(source: TransferSet) -> int:
    row_bytes = math.prod(source.input_shape) * source.input_dtype.itemsize
    return max(1, min(_MOST_ROWS, _BATCH_BYTES // row_bytes))


def _checked_labels(
    source: TransferSet, start: int, stop: int, ids: list[str], num_classes: int
) -> list[int | None]:
    labels_B = source.labels(start, stop)
    if labels_B is None:
        return [None] * (stop - start)
    for row in np.flatnonzero((labels_B < -1) | (labels_B >= num_classes))[:1].tolist():
        where = f"{_origin(source, 'labels')}: row {ids[row]!r} (position {start + row})"
        raise TransferSetError(
            f"{where} has label {labels_B[row]}, expected 0 to {num_classes - 1}, or -1 for none; "
            "correct the labels or [classes]"
        )
    return [None if label == -1 else label for label in labels_B.tolist()]


def _refuse_repeated_ids(ids: pa.ChunkedArray, source: TransferSet) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    positions: dict[str, list[int]] = {}
    for position, sample_id in enumerate(ids.to_pylist()):
        positions.setdefault(sample_id, []).append(position)
    repeated = {sample_id: at for sample_id, at in positions.items() if len(at) > 1}
    shown = "; ".join(
        f"{sample_id!r} at {', '.join(map(str, at[:_SHOWN]))}"
        for sample_id, at in list(repeated.items())[:_SHOWN]
    )
    raise TransferSetError(
        f"{_origin(source, 'ids')}: {len(repeated)} sample ids repeat: {shown}; expected each once; "
        "make them unique or drop the double rows"
    )


def _origin(source: TransferSet, role: str | None = None) -> str:
    facts = source.describe()
    files = facts.get("files", {})
    named = [files[role]] if role in files else list(files.values())
    return ", ".join(str(file["name"]) for file in named) or str(facts.get("kind", "transfer set"))
