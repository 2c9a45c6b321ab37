"""Bring others' logits into a store, as a teacher that no one can run again.

Rows are known by their ids alone: a file of logits says nothing of the inputs they were made from. A student
of such rows has to allow that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softcask.pipeline.entries import Encode, Filled, encoding, entry_manifest, fill_entry
from softcask.pipeline.exchange.importers.base import ForeignLogits, Source, existing
from softcask.pipeline.exchange.importers.registry import IMPORTERS
from softcask.pipeline.exchange.importers.sparse import TopRows, columns_of, even_rows
from softcask.pipeline.plan import choose_unit_rows
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.catalog import read_contents
from softcask.pipeline.store.codecs import load_codec
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.store.writing.encoding import EncodedUnit
from softcask.pipeline.store.writing.prepare import prepare_root, prepare_segment
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.registry import codec_named
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import ExchangeError, MisalignedRows
from softcask.storage_schemas.manifest import RootManifest, TeacherManifest

UNKNOWN_INPUT = "unknown"
"""`input_dtype` of a segment whose rows were never seen."""

DENSE = ("dense16", "dense8")
_SHOWN = 3
_BATCH_ROWS = 4096


def import_logits(
    kind: str,
    source: Source,
    uri: str,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    codec: str = "dense16",
    unit_rows: int | None = None,
    ignore_extra: bool = False,
    stats: bool = True,
    objects: StoreObjects | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Make an entry of a store of someone else's logits, and the store where there is none.

    Args:
        kind: The format, see `IMPORTERS`.
        source: The file or folder.
        uri: The store. In one that has rows, the logits join them by id; all its rows must have some.
        name: Name of the entry.
        class_names: Of a store that is made; None: numbers.
        codec: How logits of all classes are kept; those of some are always kept with `topk` at T=1.
        unit_rows: Rows a unit, of a store that is made; None: as many as are good.
        ignore_extra: Leave out rows that the store does not have.
        stats: Whether units have statistics for pandas; of many classes they cost more than all else.
        objects: The store's objects, if not those at `uri`.
        progress: Called with rows done and rows in all.

    Raises:
        UnknownKind: No such format or codec.
        StoreError: `name` cannot name a teacher, or was dropped.
        ExchangeError: The source cannot be read, or a row of it makes no sense; names file and row.
        MisalignedRows: Store and source have other rows.
        ManifestMismatch: The name stands for something else, the store is about other classes.
    """
    keys.checked_name(name)
    objects = objects or StoreObjects.at(uri)
    standing = _class_names(objects)
    known = class_names or standing
    opener = IMPORTERS.get(kind)
    for path in (source.path, source.ids, source.labels):
        if path is not None:
            existing(path, "file or folder; check the path")
    foreign = opener(replace(source, classes=len(known)) if known else source)
    names = tuple(class_names or standing or map(str, range(foreign.num_classes)))
    kept = _codec(foreign, codec)
    facts = foreign.describe()
    _prepare(objects, foreign, source.path, names, facts, kept, unit_rows)
    store = open_store(uri, allow_partial=True)
    positions_N = _matched(store, foreign, source, ignore_extra)
    wanted = entry_manifest(
        objects,
        name,
        kind="imported",
        num_classes=foreign.num_classes,
        codec=kept,
        fingerprint=facts,
        recorded={"limits": list(foreign.limits)},
        stats=stats,
    )
    encode = _encoding(objects, wanted, foreign, positions_N)
    return fill_entry(store, wanted, encode, objects=objects, progress=progress)


def _encoding(
    objects: StoreObjects, wanted: TeacherManifest, foreign: ForeignLogits, positions_N: NDArray[np.int64]
) -> Encode:
    codec = load_codec(objects, wanted)
    if foreign.top_k is None or not isinstance(codec, TopK):
        return encoding(objects, wanted, lambda rows_B: cast(Any, foreign.read(positions_N[rows_B])))

    def encode(numbers_R: NDArray[np.int64]) -> EncodedUnit:
        columns = columns_of(even_rows(len(numbers_R), codec), codec)
        seen_R = np.flatnonzero(numbers_R >= 0)
        for first in range(0, len(seen_R), _BATCH_ROWS):
            some_B = seen_R[first : first + _BATCH_ROWS]
            rows = foreign.read(positions_N[numbers_R[some_B]])
            for name, values in columns_of(cast(TopRows, rows), codec).items():
                columns[name][some_B] = values
        best_R = columns["logits"].argmax(axis=1)[:, None]
        top_R = np.take_along_axis(columns["classes"], best_R, axis=1)[:, 0].astype(np.int64)
        return EncodedUnit(columns=columns, top_R=top_R, fidelity=())

    return encode


def _class_names(objects: StoreObjects) -> tuple[str, ...] | None:
    data = objects.read_if_present(keys.ROOT)
    return RootManifest.from_bytes(data, keys.ROOT).class_names if data is not None else None


def _codec(foreign: ForeignLogits, name: str) -> Codec:
    if foreign.top_k is None:
        made = codec_named(name)
        if name not in DENSE:
            raise ExchangeError(
                f"logits of all classes are kept with {' or '.join(DENSE)} when they are imported, not with "
                f"{name}: do that with `softcask reencode` after"
            )
        return made()
    settings = Settings(num_classes=foreign.num_classes, head_size=foreign.top_k, temperatures=(1.0,))
    return TopK(settings=settings)


def _prepare(
    objects: StoreObjects,
    foreign: ForeignLogits,
    path: Path,
    class_names: tuple[str, ...],
    facts: dict[str, object],
    codec: Codec,
    unit_rows: int | None,
) -> None:
    """Root and rows, where the store has none yet."""
    if len(class_names) != foreign.num_classes:
        raise ExchangeError(
            f"{objects.uri} has {len(class_names)} classes, the logits have {foreign.num_classes}; they are "
            "about something else"
        )
    table = None if read_contents(objects).segments else _rows(foreign, path)
    prepare_root(objects, class_names)  # rows that cannot be used have left no trace
    if table is None:
        return
    columns = codec.columns(foreign.num_classes)
    prepare_segment(
        objects,
        keys.segment_name(0),
        source={"kind": "imported", **facts},
        input_shape=(),
        input_dtype=UNKNOWN_INPUT,
        unit_rows=unit_rows,
        index=lambda: table,
        choose_unit_rows=lambda rows: choose_unit_rows(
            rows=rows, row_bytes=sum(column.row_bytes for column in columns), batch_size=64
        ),
        columns=columns,
    )


def _rows(foreign: ForeignLogits, path: Path) -> pa.Table:
    """The source's rows as a segment's: without content hashes, for nobody has seen the inputs."""
    ids, labels_N = foreign.sample_ids(), foreign.labels()
    if not len(ids):
        raise ExchangeError(f"{path}: no rows; expected at least one")
    _refuse_repeated(ids, path)
    if labels_N is not None and ((labels_N < -1) | (labels_N >= foreign.num_classes)).any():
        raise ExchangeError(
            f"{path}: labels from {labels_N.min()} to {labels_N.max()}, expected 0 to "
            f"{foreign.num_classes - 1}, or -1 for none"
        )
    labels = pa.nulls(len(ids), pa.int32())
    if labels_N is not None:
        labels = pa.array(labels_N, pa.int32(), mask=labels_N < 0)
    columns = {
        "sample_id": ids,
        "content_hash": pa.nulls(len(ids), pa.binary(tables.HASH_BYTES)),
        "label": labels,
        "quarantine": pa.nulls(len(ids), pa.string()),
    }
    return pa.table(columns, schema=tables.ROWS)


def _refuse_repeated(ids: pa.Array, path: Path) -> None:
    if (repeated := len(ids) - pc.count_distinct(ids).as_py()) > 0:
        raise ExchangeError(f"{path}: {repeated} sample ids repeat; expected each once")


def _matched(store: Store, foreign: ForeignLogits, source: Source, ignore_extra: bool) -> NDArray[np.int64]:
    """Position `[N]` in the source of each of the store's rows."""
    ids = foreign.sample_ids()
    _refuse_repeated(ids, source.path)
    wanted = pa.array(store.rows.sample_ids, pa.string())
    positions = pc.index_in(wanted, value_set=ids)
    missing, extra = positions.null_count, len(ids) - (len(wanted) - positions.null_count)
    if missing:
        lacking = wanted.filter(positions.is_null())[:_SHOWN].to_pylist()
        raise MisalignedRows(
            f"{source.path} has no logits of {missing} of {len(wanted)} rows of {store.uri} "
            f"({', '.join(lacking)}), and {extra} rows that are not there (its ids look like "
            f"{ids[0].as_py()!r}). Expected the same ids; or import into a store of its own"
        )
    if extra and not ignore_extra:
        raise MisalignedRows(
            f"{source.path} has {extra} rows that {store.uri} does not have. Leave them out with "
            "--ignore-extra, or import into a store of its own"
        )
    positions_N: NDArray[np.int64] = positions.to_numpy().astype(np.int64)
    _refuse_other_labels(store, foreign, positions_N, source.path)
    return positions_N


def _refuse_other_labels(
    store: Store, foreign: ForeignLogits, positions_N: NDArray[np.int64], path: Path
) -> None:
    """Ids that mean other rows are told by their labels, where both sides have some."""
    if (labels := foreign.labels()) is None:
        return
    mine_N, theirs_N = store.rows.labels, labels[positions_N]
    differ = np.flatnonzero((mine_N >= 0) & (theirs_N >= 0) & (mine_N != theirs_N))
    if differ.size:
        row = int(differ[0])
        raise MisalignedRows(
            f"{path} has other labels than {store.uri} for {differ.size} rows, the first "
            f"{store.rows.sample_ids[row]!r}: found {theirs_N[row]}, expected {mine_N[row]}. The ids name "
            "other rows, or the classes have another order"
        )
