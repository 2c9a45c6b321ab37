from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.stores import flip

from softcask.storage_schemas import zarr_layout
from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject, StoreError
from softcask.storage_schemas.zarr_layout import ArrayLayout, Compression, check_unit_rows, group_metadata


def layout_of(
    *,
    rows: int,
    unit_rows: int,
    classes: int | None = 3,
    dtype: str = "<f2",
    name: str = "logits",
    compression: Compression = "none",
) -> ArrayLayout:
    column = Column(
        name=name,
        dtype=np.dtype(dtype),
        row_shape=() if classes is None else (classes,),
        dimension_names=("row",) if classes is None else ("row", "class"),
    )
    return ArrayLayout(column=column, rows=rows, unit_rows=unit_rows, compression=compression)


def values_of(layout: ArrayLayout, seed: int = 0) -> NDArray[Any]:
    shape = (layout.rows, *layout.column.row_shape)
    return np.random.default_rng(seed).normal(0, 5, shape).astype(layout.column.dtype)


def shards_of(layout: ArrayLayout, values: NDArray[Any]) -> list[bytes]:
    starts = range(0, layout.rows, layout.unit_rows)
    return [layout.encode_shard(values[start : start + layout.unit_rows]) for start in starts]


def write(folder: Path, layout: ArrayLayout, shards: list[bytes]) -> Path:
    array = folder / layout.column.name
    array.mkdir(parents=True)
    (array / "zarr.json").write_bytes(layout.metadata())
    for index, shard in enumerate(shards):
        target = folder / layout.shard_key(index)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(shard)
    return array


def read_by_zarr(array: Path) -> NDArray[Any]:
    return np.asarray(zarr.open_array(array, mode="r")[...])


def read_by_tensorstore(array: Path) -> NDArray[Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{array}/"}}
    return np.asarray(tensorstore.open(spec).result().read().result())


SMALL = {
    "rows": st.integers(1, 40),
    "unit_rows": st.integers(1, 17),
    "classes": st.none() | st.integers(1, 6),
}


@settings(max_examples=20)
@given(
    **SMALL,
    dtype=st.sampled_from(["<f2", "<f4", "|i1"]),
    compression=st.sampled_from(["none", "blosc"]),
    chunk_bytes=st.sampled_from([8, 30, 1 << 20]),
)
def test_what_is_written_is_read_equal_by_zarr_and_tensorstore_and_decoded_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    unit_rows: int,
    classes: int | None,
    dtype: str,
    compression: Compression,
    chunk_bytes: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "CHUNK_BYTES", chunk_bytes)
        layout = layout_of(
            rows=rows, unit_rows=unit_rows, classes=classes, dtype=dtype, compression=compression
        )
        values = values_of(layout)
        shards = shards_of(layout, values)
        array = write(tmp_path_factory.mktemp("store"), layout, shards)
        for read in (read_by_zarr, read_by_tensorstore):
            found = read(array)
            assert found.dtype == values.dtype
            assert np.array_equal(found, values)
        for index, shard in enumerate(shards):
            part = values[index * unit_rows : (index + 1) * unit_rows]
            assert np.array_equal(layout.decode_shard(shard, len(part), "k"), part)


def test_shards_that_are_not_there_read_as_nan(tmp_path: Path) -> None:
    layout = layout_of(rows=10, unit_rows=4)
    values = values_of(layout)
    array = write(tmp_path, layout, shards_of(layout, values))
    (tmp_path / layout.shard_key(1)).unlink()
    for found in (read_by_zarr(array), read_by_tensorstore(array)):
        assert np.isnan(found[4:8]).all()
        assert np.array_equal(np.delete(found, range(4, 8), axis=0), np.delete(values, range(4, 8), axis=0))


def test_a_group_opens_with_its_arrays_names_and_attributes(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_bytes(group_metadata({"softcask": {"teacher": "alpha"}}))
    logits, row_max = (layout_of(rows=6, unit_rows=4), layout_of(rows=6, unit_rows=4, classes=None, name="m"))
    for layout in (logits, row_max):
        write(tmp_path, layout, shards_of(layout, values_of(layout)))
    group = zarr.open_group(tmp_path, mode="r")
    assert dict(group.attrs) == {"softcask": {"teacher": "alpha"}}
    assert sorted(group.array_keys()) == ["logits", "m"]
    assert group["logits"].metadata.dimension_names == ("row", "class")  # type: ignore[union-attr]
    assert np.array_equal(np.asarray(group["m"]), values_of(row_max))


def test_a_shard_is_chunks_with_checksums_and_an_index_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte by the specification of `sharding_indexed`: two chunks of two rows, one row given.

    Four bytes before the index are ours: the checksum of the chunks' checksums.
    """
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 4)
    layout = layout_of(rows=4, unit_rows=4, classes=1)
    shard = layout.encode_shard(np.array([[1.0]], dtype=np.float16))
    chunk = bytes.fromhex("003c") + bytes.fromhex("007e")  # 1.0, then NaN to fill up
    checksum = crc32c(chunk).to_bytes(4, "little")
    index = np.array([0, 8, 2**64 - 1, 2**64 - 1], dtype="<u8").tobytes()
    parts = [chunk, checksum, crc32c(checksum).to_bytes(4, "little")]
    assert shard == b"".join([*parts, index, crc32c(index).to_bytes(4, "little")])


@given(seeds=st.sets(st.integers(0, 10**6), min_size=2, max_size=2), rows=st.integers(1, 9))
def test_shards_of_other_values_have_other_checksums(seeds: set[int], rows: int) -> None:
    """Not so of themselves: the CRC of bytes that end in their own CRC is one and the same for all bytes."""
    layout = layout_of(rows=rows, unit_rows=4)
    one, other = (layout.encode_shard(values_of(layout, seed)[:4]) for seed in sorted(seeds))
    assert one != other
    assert crc32c(one) != crc32c(other)


@pytest.mark.parametrize("compression", ["none", "blosc"])
def test_every_flipped_byte_of_a_shard_is_found(
    monkeypatch: pytest.MonkeyPatch, compression: Compression
) -> None:
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 12)
    layout = layout_of(rows=7, unit_rows=8, compression=compression)
    (shard,) = shards_of(layout, values_of(layout))
    for place, bit in itertools.product(range(len(shard)), range(8)):
        with pytest.raises(CorruptObject, match="logits/c/0/0"):
            layout.decode_shard(flip(shard, place, bit), 7, "logits/c/0/0")


def test_a_flipped_byte_of_a_chunk_is_found_by_zarr_and_tensorstore_too(tmp_path: Path) -> None:
    layout = layout_of(rows=8, unit_rows=8)
    (shard,) = shards_of(layout, values_of(layout))
    array = write(tmp_path, layout, [shard])
    for place in range(0, layout.chunk_bytes + 4, 5):
        (tmp_path / layout.shard_key(0)).write_bytes(flip(shard, place))
        for read in (read_by_zarr, read_by_tensorstore):
            with pytest.raises(ValueError, match=r"checksum|Digest mismatch"):
                read(array)


@given(size=st.integers(0, 200), seed=st.integers(0, 9), compression=st.sampled_from(["none", "blosc"]))
def test_bytes_that_are_no_shard_are_refused(size: int, seed: int, compression: Compression) -> None:
    layout = layout_of(rows=4, unit_rows=4, compression=compression)
    for data in (np.random.default_rng(seed).bytes(size), bytes(size), b"\xff" * size):
        with pytest.raises(CorruptObject):
            layout.decode_shard(data, 4, "k")


def test_a_shard_of_other_rows_or_another_layout_is_refused() -> None:
    layout = layout_of(rows=40, unit_rows=20)
    shard = shards_of(layout, values_of(layout))[0]
    for other, rows in (
        (layout_of(rows=40, unit_rows=10), 10),
        (layout_of(rows=40, unit_rows=20, classes=4), 20),
        (layout_of(rows=40, unit_rows=20, dtype="<f4"), 20),
    ):
        with pytest.raises(CorruptObject):
            other.decode_shard(shard, rows, "k")


@settings(max_examples=20)
@given(rows=st.integers(1, 12), unit_rows=st.integers(1, 12), chunk_bytes=st.sampled_from([6, 24, 1 << 20]))
def test_a_shard_that_zarr_wrote_by_the_same_metadata_is_refused_as_none_of_ours(
    tmp_path_factory: pytest.TempPathFactory, rows: int, unit_rows: int, chunk_bytes: int
) -> None:
    """It may order its chunks otherwise and has no checksum of checksums; nothing is guessed at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "CHUNK_BYTES", chunk_bytes)
        layout = layout_of(rows=rows, unit_rows=unit_rows)
        values = values_of(layout)
        array = write(tmp_path_factory.mktemp("store"), layout, [])
        zarr.open_array(array, mode="r+")[...] = values
        assert np.array_equal(read_by_tensorstore(array), values)
        for index, start in enumerate(range(0, rows, unit_rows)):
            shard = (array.parent / layout.shard_key(index)).read_bytes()
            with pytest.raises(CorruptObject, match="has .* bytes"):
                layout.decode_shard(shard, min(unit_rows, rows - start), "k")


@given(rows=st.integers(1, 10**6), unit_rows=st.integers(1, 40_000), classes=st.integers(1, 5000))
def test_chunks_divide_the_unit_and_stay_below_their_target(rows: int, unit_rows: int, classes: int) -> None:
    layout = layout_of(rows=rows, unit_rows=unit_rows, classes=classes)
    assert unit_rows % layout.chunk_rows == 0
    assert layout.chunk_bytes <= max(1 << 20, 2 * classes)
    # The largest such: no other divisor fits.
    larger = (n for n in range(layout.chunk_rows + 1, unit_rows + 1) if unit_rows % n == 0)
    assert all(n * 2 * classes > 1 << 20 for n in larger)


def test_equal_rows_give_equal_bytes_whatever_their_memory_looks_like() -> None:
    layout = layout_of(rows=8, unit_rows=8)
    values = values_of(layout)
    expected = layout.encode_shard(values)
    for same in (np.asfortranarray(values), values[::-1][::-1], values.astype(">f2"), values.astype("<f4")):
        assert layout.encode_shard(same) == expected


def test_metadata_holds_nothing_but_what_the_layout_says() -> None:
    one, same, other = (layout_of(rows=n, unit_rows=4).metadata() for n in (10, 10, 11))
    assert one == same != other
    assert json.loads(one)["shape"] == [10, 3]


def test_units_that_fall_into_tiny_chunks_are_refused_with_lengths_that_do_not() -> None:
    """A row of 1000 classes has 2000 bytes: 524 rows a chunk at most, and 66 at least."""
    columns = [layout_of(rows=1, unit_rows=1, classes=classes).column for classes in (1000, None)]
    with pytest.raises(
        StoreError, match="units of 5003 rows fall into chunks of 1 rows, where 524"
    ) as refused:
        check_unit_rows(5003, columns)
    assert "Set unit_rows to 5002 or 5004" in str(refused.value)
    for good in (5002, 5004):  # 2 * 41 * 61, 4 * 9 * 139
        assert max(rows for rows in range(1, 525) if good % rows == 0) >= 66
        check_unit_rows(good, columns)


@pytest.mark.parametrize("unit_rows", [1, 7, 499, 523, 524, 1024, 5000, 32768])
def test_units_of_one_chunk_or_with_a_divisor_near_its_target_are_good(unit_rows: int) -> None:
    check_unit_rows(unit_rows, [layout_of(rows=1, unit_rows=1, classes=1000).column])


def test_rows_as_large_as_a_chunk_are_good_chunks_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 1 << 10)
    check_unit_rows(5003, [layout_of(rows=1, unit_rows=1, classes=1000).column])
