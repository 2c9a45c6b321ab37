"""Malformed stores whose checksums are right: who makes them can write whatever consistent store they like.

A store is taken apart into documents and bytes, changed, and put together again with every record and every
checksum worked out anew. What reads it runs in a process of its own, of bounded memory and under watch, so
that a crash, a hang, a giant allocation or a look outside the store is an outcome like any other.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.pipeline.store.foreign import by_zarr, rewrite_array
from tests.storage_schemas.codecs.lowrank_codecs import lowrank
from tests.stores import MadeStore

from softcask.pipeline.store.care.drops import drop, plan_drop
from softcask.pipeline.store.codecs import publish_codec
from softcask.storage_schemas import keys, tables
from softcask.storage_schemas.checksum import crc32c, crc32c_hex
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.topk import Settings, TopK

CLASSES = 5
CODECS: dict[str, tuple[Codec, str]] = {
    "dense16": (Dense16(), "none"),
    "dense16-packed": (Dense16(), "blosc"),
    "dense8": (Dense8(), "none"),
    "dense8-packed": (Dense8(), "blosc"),
    "topk": (TopK(settings=Settings(num_classes=CLASSES, head_size=2)), "none"),
    "lowrank": (lowrank(CLASSES, head=2, rank=3), "none"),
    "foreign": (Dense16(), "none"),
}
FOREIGN = f"{keys.logits_group('foreign', 's0000', 0)}/logits"
"""An array of shards that zarr-python wrote."""
SECRET = b"what lies outside of a store is nobody's business\n"
Place = list[str | int]


def varied_store(uri: str) -> MadeStore:
    """Every codec, plain, packed and of another's making; two segments, a row quarantined, one dropped."""
    made = MadeStore.at(uri, class_names=[f"class {number}" for number in range(CLASSES)])
    made.add_segment(11, quarantined=[5])
    made.add_segment(3)
    for name, (codec, compression) in CODECS.items():
        spec = publish_codec(made.objects, name, codec).model_copy(update={"compression": compression})
        made.add_teacher(name, codec=spec)
    made.commit_all()
    made.record_run()
    rewrite_array(made, "foreign", "logits", by_zarr(shards=(8, CLASSES), chunks=(2, CLASSES)))
    drop(made.objects, plan_drop(made.objects, sample_ids=["id-002"]))
    return made


def signed(body: dict[str, Any]) -> bytes:
    """A document with its checksum, whatever is in it."""
    text = json.dumps({**body, "checksum": "crc32c:00000000"}, indent=2) + "\n"
    return text.replace('00000000"\n}', f'{crc32c_hex(text.encode())}"\n}}').encode()


def record(key: str, data: bytes) -> dict[str, Any]:
    return {"key": key, "size": len(data), "crc32c": crc32c_hex(data)}


def resealed_shard(chunks: list[bytes], index: list[tuple[int, int]] | None, places: int) -> bytes:
    """A shard of these chunks with right checksums; its index says where they lie, or anything else."""
    checksums = [crc32c(chunk).to_bytes(4, "little") for chunk in chunks]
    body = b"".join(chunk + checksum for chunk, checksum in zip(chunks, checksums, strict=True))
    ends = np.cumsum([len(chunk) + 4 for chunk in chunks]).tolist()
    honest = [(end - len(chunk) - 4, len(chunk) + 4) for end, chunk in zip(ends, chunks, strict=True)]
    entries = np.full((places, 2), 2**64 - 1, dtype="<u8")
    for number, entry in enumerate((index or honest)[:places]):
        entries[number] = entry
    seal_ = crc32c(b"".join(checksums)).to_bytes(4, "little")
    tail = entries.tobytes()
    return body + seal_ + tail + crc32c(tail).to_bytes(4, "little")


@dataclass(slots=True)
class Forgery:
    """A store in memory, to be changed and put together again.

    Attributes:
        documents: Bodies by key.
        rows: Rows of each table of commits by key.
        raw: All other objects.
        placed: What stands in place of an object: "fifo", "folder", "sparse", or "-> TARGET".
        as_written: Keys whose records are left as they are.
    """

    documents: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    raw: dict[str, bytes]
    placed: dict[str, str] = field(default_factory=dict)
    as_written: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, objects: dict[str, bytes]) -> Forgery:
        documents, rows, raw = {}, {}, {}
        for key, data in objects.items():
            if key.endswith(".json") and not key.endswith("zarr.json"):
                documents[key] = json.loads(data)
                documents[key].pop("checksum")
            elif "/commits-" in key:
                rows[key] = pq.read_table(pa.BufferReader(data)).to_pylist()
            else:
                raw[key] = data
        return cls(documents, rows, raw)

    def copy(self) -> Forgery:
        return copy.deepcopy(self)

    def assembled(self) -> dict[str, bytes]:
        """Every object; a record of one that stands says what it is, unless it was changed on purpose."""
        done = dict(self.raw)
        order = sorted(self.documents, key=lambda key: ("catalog/" in key, "newest" in key))
        for key in (each for each in order if "catalog/" not in each):
            done[key] = signed(self._true(self.documents[key], done))
        for key, rows in self.rows.items():
            done[key] = self._table(self._true(rows, done))
        for key in (each for each in order if "catalog/" in each):
            done[key] = signed(self._true(self.documents[key], done))
        return done

    def _true(self, value: Any, done: dict[str, bytes]) -> Any:
        if isinstance(value, list):
            return [self._true(each, done) for each in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"key", "size", "crc32c"} and str(value["key"]) in done:
            key = value["key"]
            return value if key in self.as_written else record(key, done[key])
        return {name: self._true(each, done) for name, each in value.items()}

    @staticmethod
    def _table(rows: list[dict[str, Any]]) -> bytes:
        try:
            return tables.to_bytes(pa.Table.from_pylist(rows, schema=tables.COMMITS))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return tables.to_bytes(pa.table({"teacher": ["of no such schema"]}))

    def write(self, folder: Path, good: Path | None = None) -> None:
        """Put it on a disk; what is as in the store at `good` is linked to that."""
        for key, data in self.assembled().items():
            if key in self.placed:
                continue
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            same = good is not None and (good / key).is_file() and (good / key).read_bytes() == data
            path.hardlink_to(good / key) if same and good else path.write_bytes(data)
        for key, what in self.placed.items():
            put_in_place(folder / key, what)


def put_in_place(path: Path, what: str) -> None:
    """Something else than a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 42)
    else:
        path.symlink_to(what.removeprefix("-> "))


def places_in(value: Any, where: Place | None = None) -> Iterator[Place]:
    """Where there is anything in a document."""
    where = where or []
    if where:
        yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places_in(each, [*where, name])


def put(body: Any, where: Place, value: Any) -> None:
    """Change what is there."""
    for name in where[:-1]:
        body = body[name]
    body[where[-1]] = value


def take(body: Any, where: Place) -> Any:
    """What is there."""
    for name in where:
        body = body[name]
    return body


# --- bombs


def parquet_bomb(schema: pa.Schema, rows: int, text: str = "x") -> bytes:
    """A table of this schema whose rows are all the same, in next to no bytes."""
    filled = []
    for each in schema:
        value: Any = None if each.nullable else text if pa.types.is_string(each.type) else 0
        if pa.types.is_list(each.type):
            value = []
        elif pa.types.is_struct(each.type):
            value = {name: None for name in (each.type.field(n).name for n in range(each.type.num_fields))}
        filled.append(pa.repeat(pa.scalar(value, each.type), rows))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(filled, schema=schema), sink, compression="zstd", use_dictionary=True)
    return sink.getvalue()


def bad_text(table: pa.Table, column: str) -> bytes:
    """The table, its strings no UTF-8."""
    place = table.schema.get_field_index(column)
    raw = pa.array([b"\xff\xfe\x80"] * len(table), pa.binary())
    text = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    return tables.to_bytes(table.set_column(place, table.schema.field(place), text))


def npy_file(header: str, data: bytes = b"") -> bytes:
    """A `.npy` file with any header."""
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


NPY_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + str((1,) * 100) + "}",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999999,)}",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '|V1099511627776', 'fortran_order': False, 'shape': (0,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '<f4', (1000000, 1000000))], 'fortran_order': False, 'shape': ()}",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (True,)}",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (5,)}",
    "{'descr': ('<f4', (5,)), 'fortran_order': False, 'shape': ()}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (5.0,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-" * 3000 + "1,)}",
    "(" * 150,
    "{" * 9000,
    "__import__('os').system('true')",
    "{'descr': 'f4,' , 'fortran_order': False, 'shape': (5,)}",
    "{'descr': '\x00', 'fortran_order': False, 'shape': (5,)}",
    "x" * 60000,
)
