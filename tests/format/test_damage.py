"""A byte of any kind that is turned over or cut off is found by who reads through `Store`.

By kinds of positions: a document, a Parquet page and its footer, a shard's chunk, its seal and its index, the
header of a Blosc frame and what is packed in it, the header of an array and its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.store.forging import varied_store
from tests.stores import MadeStore, flip

from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import Verify, open_store
from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import CorruptObject

INDEX_BYTES, CRC_BYTES, BLOSC_HEADER_BYTES, NPY_HEADER_BYTES = 16, 4, 16, 128
Places = Callable[[bytes], range]


def shard(teacher: str, column: str) -> str:
    tail = "" if column == "row_max" else "/0"
    return f"{keys.logits_group(teacher, 's0000', 0)}/{column}/c/0{tail}"


def all_of(data: bytes) -> range:
    return range(len(data))


def footer_of(data: bytes) -> range:
    """A Parquet file's: its length stands in front of the last four bytes."""
    assert data.endswith(b"PAR1")
    return range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data))


def pages_of(data: bytes) -> range:
    return range(footer_of(data).start)


def chunk_of(data: bytes) -> range:
    return range(index_of(data).start - CRC_BYTES)


def seal_of(data: bytes) -> range:
    return range(index_of(data).start - CRC_BYTES, index_of(data).start)


def index_of(data: bytes) -> range:
    """Of one chunk, with its checksum."""
    return range(len(data) - INDEX_BYTES - CRC_BYTES, len(data))


CLASSES_OF_POSITIONS: dict[str, tuple[str, str, Places]] = {
    "the root": ("dense16", keys.ROOT, all_of),
    "a segment": ("dense16", keys.segment_manifest("s0000"), all_of),
    "a teacher": ("lowrank", keys.teacher_manifest("lowrank"), all_of),
    "a generation": ("dense16", keys.generation(2), all_of),
    "the pointer": ("dense16", keys.CATALOG_POINTER, all_of),
    "pages of rows": ("dense16", keys.segment_rows("s0000"), pages_of),
    "the footer of rows": ("dense16", keys.segment_rows("s0000"), footer_of),
    "pages of a part": ("lowrank", keys.logits_part("lowrank", "s0000", 0, 0), pages_of),
    "the footer of a part": ("lowrank", keys.logits_part("lowrank", "s0000", 0, 0), footer_of),
    "a chunk": ("dense16", shard("dense16", "logits"), chunk_of),
    "a chunk of another column": ("dense8", shard("dense8", "row_max"), chunk_of),
    "a seal": ("dense16", shard("dense16", "logits"), seal_of),
    "an index": ("dense16", shard("dense16", "logits"), index_of),
    "the header of a frame": (
        "dense16-packed",
        shard("dense16-packed", "logits"),
        lambda data: range(BLOSC_HEADER_BYTES),
    ),
    "a frame": (
        "dense16-packed",
        shard("dense16-packed", "logits"),
        lambda data: range(BLOSC_HEADER_BYTES, chunk_of(data).stop),
    ),
    "a frame of another column": ("dense8-packed", shard("dense8-packed", "codes"), chunk_of),
    "the index of frames": ("dense16-packed", shard("dense16-packed", "logits"), index_of),
    "the header of an array": ("lowrank", "codec/basis-", lambda data: range(NPY_HEADER_BYTES)),
    "numbers of an array": ("lowrank", "codec/basis-", lambda data: range(NPY_HEADER_BYTES, len(data))),
}
MOST_PLACES = 60
"""Of a class that are tried; the ends of it always."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return varied_store(str(tmp_path_factory.mktemp("damage") / "store"))


@pytest.fixture
def path(made: MadeStore, key: str) -> Iterator[Path]:
    """The object that is damaged; whole again afterwards."""
    (found,) = (each for each in made.objects.all_keys() if key in each)
    path = Path(made.objects.path(found))
    data = path.read_bytes()
    yield path
    path.write_bytes(data)


def read_all(uri: str, teacher: str, check: Verify) -> None:
    store = open_store(uri, verify=check)
    store.logits_at(teacher, np.arange(len(store.rows)), 2.0)
    store.encoded(teacher, np.arange(len(store.rows)))


def tried(places: range) -> list[int]:
    few = np.linspace(places.start, places.stop - 1, min(len(places), MOST_PLACES))
    return sorted(set(few.astype(int).tolist()))


@pytest.mark.parametrize(
    ("teacher", "key", "places"), CLASSES_OF_POSITIONS.values(), ids=list(CLASSES_OF_POSITIONS)
)
def test_a_bit_that_is_turned_over_is_found(
    made: MadeStore, path: Path, teacher: str, places: Places
) -> None:
    data = path.read_bytes()
    for place in tried(places(data)):
        path.write_bytes(flip(data, place, place % 8))
        with pytest.raises(CorruptObject, match=re.escape(path.name)):
            read_all(made.objects.uri, teacher, "always")


@pytest.mark.parametrize(
    ("teacher", "key", "places"), CLASSES_OF_POSITIONS.values(), ids=list(CLASSES_OF_POSITIONS)
)
def test_an_object_that_is_cut_short_anywhere_is_found(
    made: MadeStore, path: Path, teacher: str, places: Places
) -> None:
    data = path.read_bytes()
    for place in tried(places(data))[::6]:
        path.write_bytes(data[:place])
        with pytest.raises(CorruptObject, match=re.escape(path.name)):
            read_all(made.objects.uri, teacher, "always")


ARRAY = "codec/basis-"


@pytest.mark.parametrize("key", [ARRAY])
def test_an_array_that_is_in_memory_is_read_again_by_who_verifies_always(made: MadeStore, path: Path) -> None:
    """Who verifies once goes on with what was whole when this process read it; `verify` sees the damage."""
    uri = made.objects.uri
    before, rows_B = open_store(uri), np.arange(5)
    whole_BC = before.logits_at("lowrank", rows_B, 1.0)
    path.write_bytes(flip(path.read_bytes(), -1))
    for store in (before, open_store(uri)):
        assert np.array_equal(store.logits_at("lowrank", rows_B, 1.0), whole_BC)
    with pytest.raises(CorruptObject, match=path.name):
        read_all(uri, "lowrank", "always")
    assert [problem.key for problem in verify(uri).problems if ARRAY in problem.key]


@pytest.mark.parametrize("key", [ARRAY])
def test_an_array_that_is_gone_is_named(made: MadeStore, path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(CorruptObject, match=path.name):
        read_all(made.objects.uri, "lowrank", "always")
    path.write_bytes(data)
