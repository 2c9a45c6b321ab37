"""Arrays that zarr-python or tensorstore wrote anew, in layouts of their own, are read like softcask's."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray
from tests.pipeline.store.foreign import Rewrite, by_zarr, record_anew, rewrite_array
from tests.stores import MadeStore, flip
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.care.verify import verify
from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.store.writing.sealing import seal
from softcask.storage_schemas import keys
from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.manifest import CodecSpec, UnitCommit

CLASSES, ROWS, UNIT = 6, 29, 12
LOGITS, ROW_MAX = "logits", "row_max"


def made_store(uri: str, codec: str = "dense16") -> MadeStore:
    """Three units of 12, 12 and 5 rows, two of them quarantined."""
    made = MadeStore.at(uri, class_names=[f"class {number}" for number in range(CLASSES)])
    made.unit_rows = UNIT
    made.add_segment(ROWS, quarantined=[5, 13])
    made.add_teacher("alpha", codec=CodecSpec(name=codec))
    made.add_teacher("beta", codec=CodecSpec(name=codec))
    made.commit_all()
    seal(made.objects)
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    return made_store(str(tmp_path_factory.mktemp("template") / "store"))


@pytest.fixture
def made(template: MadeStore, tmp_path: Path) -> MadeStore:
    shutil.copytree(template.objects.root, tmp_path / "store")
    return replace(template, objects=StoreObjects.at(str(tmp_path / "store")))


def by_tensorstore(place: Path, values: NDArray[Any]) -> None:
    """Shards of its own making, without checksums of chunks."""
    inner = {
        "chunk_shape": [4, CLASSES],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    array = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(place)},
            "metadata": {
                "shape": list(values.shape),
                "data_type": values.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [UNIT, CLASSES]}},
                "fill_value": "NaN",
                "codecs": [{"name": "sharding_indexed", "configuration": inner}],
            },
        },
        create=True,
    ).result()
    array.write(values).result()


def sealed_shards(place: Path, values: NDArray[Any]) -> None:
    """Checked chunks of three rows, the index in front, and the seal behind, which no library writes."""
    by_zarr(
        shards={"shape": (UNIT, CLASSES), "index_location": "start"},
        chunks=(3, CLASSES),
        compressors=[Crc32cCodec()],
    )(place, values)
    for path in [path for path in place.rglob("*") if path.is_file() and path.name != "zarr.json"]:
        path.write_bytes(path.read_bytes() + seal_of(path.read_bytes()))


def seal_of(shard: bytes) -> bytes:
    index = np.frombuffer(shard[: UNIT // 3 * 16], dtype="<u8").reshape(-1, 2)
    there = index[index[:, 0] != 2**64 - 1].tolist()
    checksums = b"".join(shard[offset + size - 4 : offset + size] for offset, size in there)
    return crc32c(checksums).to_bytes(4, "little")


LAYOUTS: dict[str, Rewrite] = {
    "what zarr-python writes by itself, in chunks of a unit": by_zarr(chunks=(UNIT, CLASSES)),
    "what zarr-python writes by itself, in shards of a unit": by_zarr(
        shards=(UNIT, CLASSES), chunks=(4, CLASSES)
    ),
    "chunks not packed": by_zarr(chunks=(UNIT, CLASSES), compressors=None),
    "chunks smaller than a unit": by_zarr(chunks=(3, CLASSES), compressors=None),
    "chunks of some classes": by_zarr(chunks=(6, 4), compressors=[ZstdCodec(level=3, checksum=True)]),
    "shards of some classes": by_zarr(shards=(UNIT, 4), chunks=(6, 2)),
    "shards that are not packed": by_zarr(shards=(UNIT, CLASSES), chunks=(6, CLASSES), compressors=None),
    "gzip": by_zarr(shards=(UNIT, CLASSES), chunks=(6, 3), compressors=[GzipCodec(level=2)]),
    "blosc of lz4, shuffled by bit": by_zarr(
        chunks=(UNIT, CLASSES), compressors=[BloscCodec(cname="lz4", shuffle="bitshuffle")]
    ),
    "an index in front": by_zarr(
        shards={"shape": (UNIT, CLASSES), "index_location": "start"}, chunks=(4, CLASSES)
    ),
    "highest byte first": by_zarr(
        chunks=(UNIT, CLASSES), serializer=BytesCodec(endian="big"), compressors=None
    ),
    "classes before rows": by_zarr(
        shards=(UNIT, CLASSES), chunks=(4, CLASSES), filters=[TransposeCodec(order=(1, 0))]
    ),
    "checksums below zstd": by_zarr(chunks=(UNIT, CLASSES), compressors=[Crc32cCodec(), ZstdCodec()]),
    "names with dots": by_zarr(
        chunks=(UNIT, CLASSES), chunk_key_encoding={"name": "default", "separator": "."}
    ),
    "names as in Zarr v2": by_zarr(chunks=(6, 4), chunk_key_encoding={"name": "v2", "separator": "."}),
    "tensorstore": by_tensorstore,
    "checked chunks with a seal": sealed_shards,
}


def read_in_all_ways(uri: str, teacher: str = "alpha") -> list[NDArray[Any]]:
    """Rows at random, in order, one by one, and decoded."""
    store = open_store(uri)
    rows_B = np.random.default_rng(0).permutation(len(store.rows))
    batches = [batch.columns[LOGITS][0] for batch in store.batches(teacher, batch_rows=7)]
    return [
        store.encoded(teacher, rows_B)[LOGITS],
        store.encoded(teacher, np.arange(2, 9))[LOGITS],
        store.logits(teacher, rows_B[:1]),
        store.logits_at(teacher, rows_B, 2.0),
        np.concatenate(batches),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_a_foreign_layout_are_what_they_were(made: MadeStore, layout: str) -> None:
    before, uri = read_in_all_ways(made.objects.uri), made.objects.uri
    rewrite_array(made, "alpha", LOGITS, LAYOUTS[layout])
    for found, expected in zip(read_in_all_ways(uri), before, strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert verify(uri).problems == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_byte_in_a_foreign_object_is_found(made: MadeStore, layout: str) -> None:
    place = rewrite_array(made, "alpha", LOGITS, LAYOUTS[layout])
    objects = [path for path in sorted(place.rglob("*")) if path.is_file()]
    for path in (objects[0], objects[-1]):
        data = path.read_bytes()
        for where in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(flip(data, where, where % 8))
            with pytest.raises(CorruptObject):
                read_in_all_ways(made.objects.uri)
        assert verify(made.objects.uri).problems
        path.write_bytes(data[:-1])
        with pytest.raises(CorruptObject):
            read_in_all_ways(made.objects.uri)
        path.write_bytes(data)


def test_columns_of_rows_of_one_number_are_read_too(made: MadeStore) -> None:
    expected_BC = open_store(made.objects.uri).logits("alpha", np.arange(20))
    rewrite_array(made, "alpha", ROW_MAX, by_zarr(chunks=(4,)))
    assert np.array_equal(open_store(made.objects.uri).logits("alpha", np.arange(20)), expected_BC)
    assert verify(made.objects.uri).problems == ()


def test_a_group_that_lists_what_is_in_it_is_sound(made: MadeStore) -> None:
    rewrite_array(made, "alpha", LOGITS, by_zarr(chunks=(UNIT, CLASSES)))
    zarr.consolidate_metadata(made.objects.path(keys.logits_group("alpha", "s0000", 0)))
    record_anew(made, "alpha", LOGITS)
    read_in_all_ways(made.objects.uri)
    assert verify(made.objects.uri).problems == ()


def test_whole_numbers_are_read_and_chunks_of_nothing_but_zeros_are_not_missed(tmp_path: Path) -> None:
    made = made_store(str(tmp_path / "store"), "dense8")
    expected_BC = open_store(made.objects.uri).logits("alpha", np.arange(27))
    place = rewrite_array(made, "alpha", "codes", by_zarr(chunks=(1, 1), compressors=None))
    stands = sum(path.is_file() for path in place.rglob("*")) - 1
    assert stands < ROWS * CLASSES  # where every code is 0 zarr-python writes none
    assert np.array_equal(open_store(made.objects.uri).logits("alpha", np.arange(27)), expected_BC)


def test_a_unit_of_a_segment_alone_may_be_cut_as_its_writer_likes(tmp_path: Path) -> None:
    made = MadeStore.at(str(tmp_path / "store"), class_names=[f"class {number}" for number in range(CLASSES)])
    made.unit_rows = 32
    made.add_segment(20)
    made.add_teacher("alpha")
    made.commit_all()
    seal(made.objects)
    expected_BC = open_store(made.objects.uri).logits("alpha", np.arange(20))
    rewrite_array(made, "alpha", LOGITS, by_zarr(chunks=(20, CLASSES)))
    assert np.array_equal(open_store(made.objects.uri).logits("alpha", np.arange(20)), expected_BC)


def test_a_store_on_another_filesystem_and_teachers_beside_it_are_read(made: MadeStore) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    rewrite_array(made, "alpha", LOGITS, by_zarr(shards=(UNIT, CLASSES), chunks=(4, CLASSES)))
    expected = read_in_all_ways(made.objects.uri, "alpha")
    fs = MemoryFileSystem()
    fs.put(made.objects.root, "/foreign-layout", recursive=True)
    try:
        store = open_store("memory://foreign-layout")
        both = store.encoded(["beta", "alpha"], np.arange(2, 9))[LOGITS]
        assert np.array_equal(both[1:], expected[1])
    finally:
        fs.rm("/foreign-layout", recursive=True)


# --- what records cannot tell apart

CONSTANT: dict[str, Rewrite] = {
    "chunks": by_zarr(chunks=(UNIT, CLASSES), compressors=[Crc32cCodec()]),
    "packed chunks": by_zarr(chunks=(UNIT, CLASSES), compressors=[ZstdCodec(), Crc32cCodec()]),
    "shards": by_zarr(shards=(UNIT, CLASSES), chunks=(4, CLASSES), compressors=[Crc32cCodec()]),
    "shards, their index not checked": by_zarr(
        chunks=(UNIT, CLASSES),
        serializer=ShardingCodec(
            chunk_shape=(4, CLASSES), codecs=[BytesCodec(), Crc32cCodec()], index_codecs=[BytesCodec()]
        ),
        compressors=None,
    ),
}


@pytest.mark.parametrize("layout", ["chunks", "shards"])
def test_two_objects_whose_chunks_end_in_their_checksums_have_one_checksum(
    made: MadeStore, layout: str
) -> None:
    """What the refusal is for: units 0 and 1 hold other rows, and their records say the same."""
    place = rewrite_array(made, "alpha", LOGITS, CONSTANT[layout])
    first, second = ((place / "c" / unit / "0").read_bytes() for unit in "01")
    assert first != second
    assert crc32c(first) == crc32c(second)


@pytest.mark.parametrize("layout", CONSTANT)
def test_a_layout_that_no_record_can_vouch_for_is_refused_and_told_why(made: MadeStore, layout: str) -> None:
    rewrite_array(made, "alpha", LOGITS, CONSTANT[layout])
    with pytest.raises(StoreError, match="without the codec crc32c"):
        read_in_all_ways(made.objects.uri)
    assert any("without the codec crc32c" in problem.message for problem in verify(made.objects.uri).problems)
    read_in_all_ways(made.objects.uri, "beta")


def test_a_sealed_shard_in_the_place_of_another_is_refused(made: MadeStore) -> None:
    place = rewrite_array(made, "alpha", LOGITS, sealed_shards)
    shutil.copy(place / "c" / "0" / "0", place / "c" / "1" / "0")
    with pytest.raises(CorruptObject, match="c/1/0"):
        read_in_all_ways(made.objects.uri)


# --- what is not read


def edited(change: Callable[[dict[str, Any]], object], **how: Any) -> Rewrite:
    """As zarr-python writes it, its document changed afterwards."""

    def rewrite(place: Path, values: NDArray[Any]) -> None:
        by_zarr(**{"chunks": (UNIT, CLASSES), **how})(place, values)
        document = json.loads((place / "zarr.json").read_text())
        change(document)
        (place / "zarr.json").write_text(json.dumps(document))

    return rewrite


SHARDED = {"shards": (UNIT, CLASSES), "chunks": (4, CLASSES)}


def settings(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["codecs"][0]["configuration"]
    return found


REFUSED: dict[str, tuple[Rewrite, str]] = {
    "rows of two units": (by_zarr(chunks=(8, CLASSES)), "rows of two units"),
    "shards of two units": (by_zarr(shards=(24, CLASSES), chunks=(4, CLASSES)), "rows of two units"),
    "another type": (edited(lambda body: body.update(data_type="float32")), "float32"),
    "more rows": (edited(lambda body: body.update(shape=[ROWS + 1, CLASSES])), "shape"),
    "a codec of nobody's": (
        edited(lambda body: body["codecs"].append({"name": "evil_package.codec", "configuration": {}})),
        "evil_package",
    ),
    "a codec of numcodecs": (
        edited(lambda body: body["codecs"].append({"name": "numcodecs.bz2", "configuration": {}})),
        "numcodecs.bz2",
    ),
    "shards in shards": (
        edited(lambda body: settings(body).update(codecs=copy.deepcopy(body["codecs"])), **SHARDED),
        "sharding_indexed",
    ),
    "packed shards": (edited(lambda body: body["codecs"].append({"name": "crc32c"}), **SHARDED), "behind"),
    "a transformer": (edited(lambda body: body.update(storage_transformers=[{"name": "x"}])), "transformers"),
    "a field of a later Zarr": (edited(lambda body: body.update(later=1)), "later"),
    "a chunk of nothing": (
        edited(lambda body: settings(body).update(chunk_shape=[0, CLASSES]), **SHARDED),
        "chunk_shape",
    ),
    "chunks that do not divide": (
        edited(lambda body: settings(body).update(chunk_shape=[5, CLASSES]), **SHARDED),
        "does not read",
    ),
    "a grid of another kind": (
        edited(lambda body: body["chunk_grid"].update(name="rectilinear")),
        "regular",
    ),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_a_layout_that_is_not_read_is_refused_and_named(made: MadeStore, layout: str) -> None:
    rewrite, message = REFUSED[layout]
    rewrite_array(made, "alpha", LOGITS, rewrite)
    with pytest.raises(StoreError, match=message):
        read_in_all_ways(made.objects.uri)
    assert any(f"{LOGITS}/zarr.json" in problem.message for problem in verify(made.objects.uri).problems)
    read_in_all_ways(made.objects.uri, "beta")


BOMB = 64 << 20
BOMBS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "zstd": (ZstdCodec(), lambda: bytes(Zstd(1).encode(bytes(BOMB)))),
    "gzip": (GzipCodec(), lambda: gzip.compress(bytes(BOMB), 1)),
    "two streams of gzip": (
        GzipCodec(),
        lambda: gzip.compress(bytes(2 * UNIT * CLASSES)) + gzip.compress(bytes(BOMB), 1),
    ),
    "blosc": (BloscCodec(), lambda: bytes(Blosc("zstd", 1).encode(bytes(BOMB)))),
    "nothing": (ZstdCodec(), lambda: b""),
    "noise": (BloscCodec(), lambda: bytes(range(64))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_unpacks_to_anything_else_makes_no_room(
    made: MadeStore, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, bomb = BOMBS[kind]
    place = rewrite_array(made, "alpha", LOGITS, by_zarr(chunks=(UNIT, CLASSES), compressors=[codec]))
    (place / "c" / "1" / "0").write_bytes(bomb())
    record_anew(made, "alpha", LOGITS)
    monkeypatch.setattr("zarr.open_array", lambda *_, **__: pytest.fail("it was given to zarr-python"))
    with pytest.raises(CorruptObject, match="c/1/0"):
        open_store(made.objects.uri).encoded("alpha", np.array([15]))


@pytest.mark.parametrize("entry", [(2**64 - 8, 16), (0, 2**63), (2**40, 4)])
def test_an_index_that_leads_out_of_its_shard_is_refused(made: MadeStore, entry: tuple[int, int]) -> None:
    place = rewrite_array(made, "alpha", LOGITS, by_zarr(**SHARDED))
    path = place / "c" / "1" / "0"
    index = np.array([entry] * 3, dtype="<u8").tobytes()
    path.write_bytes(bytes(100) + index + crc32c(index).to_bytes(4, "little"))
    record_anew(made, "alpha", LOGITS)
    with pytest.raises(CorruptObject, match="c/1/0 lies outside"):
        open_store(made.objects.uri).encoded("alpha", np.array([15]))


def test_an_object_of_another_units_rows_is_not_taken_for_one_of_this_unit(made: MadeStore) -> None:
    rewrite_array(made, "alpha", LOGITS, by_zarr(chunks=(UNIT, CLASSES)))
    receipts = [keys.commit("alpha", keys.unit_name("s0000", 0, index)) for index in (0, 1)]
    first, second = (UnitCommit.from_bytes(made.objects.read(key), key) for key in receipts)
    taken = (*second.objects, *(record for record in first.objects if LOGITS in record.key.split("/")[5:]))
    made.objects.replace(receipts[1], second.model_copy(update={"objects": taken}).to_bytes())
    shutil.rmtree(Path(made.objects.path("catalog")))
    seal(made.objects)
    with pytest.raises(CorruptObject, match="not of it"):
        open_store(made.objects.uri).encoded("alpha", np.array([15]))


def test_softcasks_own_arrays_are_read_without_zarr_python(
    made: MadeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zarr.open_array", lambda *_, **__: pytest.fail("it was given to zarr-python"))
    read_in_all_ways(made.objects.uri)
