"""Stores made to do harm: reading them ends in softcask's own errors, or in what the store says."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numcodecs import blosc
from tests.pipeline.store.forging import (
    NPY_HEADERS,
    SECRET,
    Forgery,
    bad_text,
    npy_file,
    parquet_bomb,
    put,
    record,
    resealed_shard,
    take,
)
from tests.pipeline.store.watched_reading import Workshop
from tests.storage_schemas.codecs.lowrank_codecs import lowrank

from softcask.storage_schemas import keys, npy, tables
from softcask.storage_schemas.parquet_layout import PartLayout

SEGMENT, ROWS = keys.segment_manifest("s0000"), keys.segment_rows("s0000")
NEWEST = keys.generation(2)
SHARD = f"{keys.logits_group('dense16', 's0000', 0)}/logits/c/0/0"
PACKED = f"{keys.logits_group('dense16-packed', 's0000', 0)}/logits/c/0/0"
PART = keys.logits_part("lowrank", "s0000", 0, 0)
LOWRANK = keys.teacher_manifest("lowrank")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("hostile"))
    yield made
    made.reader.close()


def tables_of(forgery: Forgery) -> str:
    """Key of the newest table of commits."""
    return str(forgery.documents[NEWEST]["tables"][-1]["key"])


def repeated(field: str) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        forgery.documents[NEWEST][field] *= 3000

    return attack


def set_to(key: str, where: list[str | int], value: Any) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        put(forgery.documents[key], where, value)

    return attack


def raw(key: str, make: Callable[[bytes], bytes]) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        forgery.raw[key] = make(forgery.raw[key])

    return attack


def placed(key: str, what: str) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        forgery.placed[key] = what

    return attack


def named(where: list[str | int], key: str) -> Callable[[Forgery], None]:
    """A record that leads elsewhere, and is right about what lies there."""

    def attack(forgery: Forgery) -> None:
        take(forgery.documents[NEWEST], where).update(record(key, SECRET))

    return attack


def many_rows(forgery: Forgery, *, unit_rows: int, rows: int = 250_000) -> None:
    """A segment of as many rows as fit in next to no bytes, all of them readable."""
    forgery.documents[SEGMENT].update(rows=rows, quarantined=0, labelled=0, unit_rows=unit_rows)
    forgery.raw[ROWS] = parquet_bomb(tables.ROWS, rows)
    for table in forgery.rows.values():
        table[:] = [row for row in table if row["segment"] == "s0001" or row["index"] == 0]
        for row in table:
            if row["segment"] == "s0000":
                row["stop"] = min(unit_rows, rows)


def blank_part(forgery: Forgery) -> None:
    """Parts without rows, of units of many: their blank rows take gigabytes."""
    many_rows(forgery, unit_rows=250_000)
    codec = lowrank(8192, head=4096, rank=3, bits=12)
    teacher = forgery.documents[LOWRANK]
    teacher["num_classes"] = 8192
    teacher["codec"]["configuration"] = codec.to_spec().configuration
    for name, values in codec.arrays().items():
        forgery.raw[codec_array(forgery, name)] = npy.to_bytes(values)
    columns = codec.columns(8192)
    rows = {column.name: column.blank(1) for column in columns}
    forgery.raw[PART] = PartLayout(columns=columns).encode_part(np.array([0]), rows)


def blosc_bomb(forgery: Forgery) -> None:
    """A chunk a row of a million classes, all 0, that packs to a few bytes."""
    many_rows(forgery, unit_rows=20_000, rows=20_000)
    key = keys.teacher_manifest("dense16-packed")
    forgery.documents[key]["num_classes"] = 1 << 20
    zeros = blosc.compress(bytes(2 << 20), b"zstd", 9, 1, 2 << 20, 2)
    forgery.raw[PACKED] = resealed_shard([zeros] * 20_000, None, 20_000)


def lying_frame(forgery: Forgery) -> None:
    """A Blosc frame that says it unpacks to 2 GB."""
    frame = blosc.compress(bytes(8 * 5 * 2), b"zstd", 1, 1, 80, 2)
    lie = frame[:4] + struct.pack("<I", 2**31 - 1) + frame[8:]
    forgery.raw[PACKED] = resealed_shard([lie], None, 1)


def index_to(*entry: int) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        forgery.raw[SHARD] = resealed_shard([bytes(80)], [(entry[0], entry[1])], 1)

    return attack


def bad_ids() -> bytes:
    table = pa.table(
        {
            "sample_id": ["a"] * 11,
            "content_hash": [None] * 11,
            "label": [None] * 11,
            "quarantine": [None] * 11,
        },
        schema=tables.ROWS,
    )
    return bad_text(table, "sample_id")


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": [value]}
    return value


def deepest(forgery: Forgery) -> None:
    del forgery.documents[LOWRANK]
    forgery.raw[LOWRANK] = b'{"softcask": ' * 100_000


def circle(forgery: Forgery) -> None:
    """Generation 2 says that it is 1: after it comes 2."""
    forgery.documents[NEWEST]["generation"] = 1


def same_segment_under_many_names(forgery: Forgery) -> None:
    listed = forgery.documents[NEWEST]["manifests"]
    for number in range(300):
        key = f"transfer_set/x{number:04d}/segment.json"
        forgery.documents[key] = dict(forgery.documents[SEGMENT])
        listed.append(record(key, b""))


def codec_array(forgery: Forgery, name: str = "basis") -> str:
    return str(forgery.documents[LOWRANK]["codec"]["arrays"][name]["key"])


def array_of(header: str, data: bytes = bytes(20)) -> Callable[[Forgery], None]:
    def attack(forgery: Forgery) -> None:
        forgery.raw[codec_array(forgery)] = npy_file(header, data)

    return attack


def other_logits(forgery: Forgery) -> None:
    group = keys.logits_group("dense16", "s0000", 0)
    for key in [key for key in forgery.raw if key.startswith(f"{group}/")]:
        del forgery.raw[key]
    forgery.placed[group] = "-> ../../../../../outside"


HUNDRED_AXES = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 100}}}"


def links_in_circles(forgery: Forgery) -> None:
    """Folders that hold each other, many times over."""
    for number in range(6):
        forgery.placed[f"teachers/loop-{number}"] = "-> ."


OUTSIDE = "../outside/secret"

ATTACKS: dict[str, Callable[[Forgery], None]] = {
    "a generation that comes after itself": circle,
    "a generation far ahead": set_to(keys.CATALOG_POINTER, ["generation"], 10**8 - 1),
    "a table many times over": repeated("tables"),
    "a manifest many times over": repeated("manifests"),
    "one segment under many names": same_segment_under_many_names,
    "deep configuration": set_to(LOWRANK, ["codec", "configuration", "fit"], deep(20)),
    "deepest JSON": lambda forgery: deepest(forgery),
    "deepest configuration": set_to(LOWRANK, ["codec", "configuration", "fit"], {"a": deep(100)}),
    "deep fingerprint": set_to(LOWRANK, ["fingerprint"], {"a": deep(100)}),
    "half a character": set_to(keys.ROOT, ["class_names", 0], "\ud800"),
    "half a character in a key": set_to(SEGMENT, ["table", "key"], "transfer_set/\ud800"),
    "a key of many parts": set_to(SEGMENT, ["table", "key"], "a/" * 5000 + "b"),
    "a long key": set_to(SEGMENT, ["table", "key"], "a" * 5000),
    "a key with a zero": set_to(SEGMENT, ["table", "key"], "a\0b"),
    "a huge number": set_to(SEGMENT, ["rows"], 10**4000),
    "rows of no table": set_to(SEGMENT, ["rows"], 2**48 - 1),
    "units of a row": lambda forgery: many_rows(forgery, unit_rows=1),
    "units of very many rows": set_to(SEGMENT, ["unit_rows"], 2**31 - 1),
    "units of very many rows, all recorded": lambda forgery: many_rows(forgery, unit_rows=2**31 - 1),
    "blank rows of a part": blank_part,
    "a bomb of Blosc": blosc_bomb,
    "a frame that lies": lying_frame,
    "an index to the end of the world": index_to(2**64 - 8, 84),
    "an index of nothing": index_to(2**64 - 1, 2**64 - 1),
    "an index of everything": index_to(0, 2**63),
    "an index into itself": index_to(88, 20),
    "a bomb of Parquet, rows": lambda forgery: many_rows(forgery, unit_rows=8, rows=5_000_000),
    "a bomb of Parquet, text": raw(ROWS, lambda _: parquet_bomb(tables.ROWS, 11, "x" * (100 << 20))),
    "no such codec": set_to(LOWRANK, ["codec", "name"], "os.system"),
    "a million classes": set_to(keys.teacher_manifest("dense16"), ["num_classes"], 1 << 20),
    "a million classes, packed": set_to(keys.teacher_manifest("dense16-packed"), ["num_classes"], 1 << 20),
    **{f"an array, {header[:60]}": array_of(header) for header in NPY_HEADERS},
    **{
        f"a record to {key}": named(["manifests", 1], key)
        for key in (OUTSIDE, "/etc/passwd", "file:///etc/passwd", "C:\\secret", "transfer_set/../../secret")
    },
    **{
        f"{what} in place of {key}": placed(key, what)
        for key in (keys.ROOT, NEWEST, ROWS, SHARD, PART)
        for what in ("fifo", "folder", "sparse", "-> /dev/zero", "-> /etc/passwd", "-> .")
    },
    **{
        f"nothing of {each}": array_of(f"{{'descr': '{each}', 'fortran_order': False, 'shape': (9,)}}", b"")
        for each in ("|V0", "|S0", "<U0")
    },
    "an array of a hundred axes": array_of(HUNDRED_AXES, bytes(4)),
    "folders in circles": links_in_circles,
    "a folder of others": placed("teachers/others", "-> ../../outside"),
    "a folder of others in place of logits": other_logits,
    "half a character of an id": lambda forgery: forgery.raw.update({ROWS: bad_ids()}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_store_made_to_do_harm_ends_in_an_error_of_softcasks(workshop: Workshop, attack: str) -> None:
    forgery = workshop.base.copy()
    ATTACKS[attack](forgery)
    assert workshop.outcome(forgery) == []
