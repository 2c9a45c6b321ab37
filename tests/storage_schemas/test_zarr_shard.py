"""What is verified of a shard, and when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.stores import flip

from softcask.storage_schemas import growth, zarr_layout
from softcask.storage_schemas.checksum import crc32c
from softcask.storage_schemas.codecs.base import Column
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.zarr_layout import ArrayLayout, Compression
from softcask.storage_schemas.zarr_shard import OpenShard

ROWS = 11


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 4 * 6)


def layout_of(compression: Compression) -> ArrayLayout:
    """Chunks of four rows of three half-precision values; 12 rows a shard."""
    column = Column(name="logits", dtype=np.dtype("<f2"), row_shape=(3,), dimension_names=("row", "class"))
    return ArrayLayout(column=column, rows=100, unit_rows=12, compression=compression)


def values(seed: int) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(0, 5, (ROWS, 3)).astype("<f2")


def opened(compression: Compression, data: bytes, committed: bytes) -> OpenShard:
    raw = np.frombuffer(data, dtype=np.uint8)
    return OpenShard(raw, layout_of(compression).grid(ROWS), "the shard", committed=crc32c(committed))


@pytest.mark.parametrize("compression", ["none", "blosc"])
def test_rows_come_by_place_and_by_range(compression: Compression) -> None:
    expected = values(0)
    data = layout_of(compression).encode_shard(expected)
    places = np.array([10, 0, 5, 5, 3])
    assert np.array_equal(
        opened(compression, data, data).take(places).view("<f2").reshape(5, 3), expected[places]
    )
    for start in range(ROWS):
        for stop in range(start + 1, ROWS + 1):
            into = np.empty((stop - start, 3), dtype="<f2")
            opened(compression, data, data).copy(start, stop, into.reshape(-1).view(np.uint8))
            assert np.array_equal(into, expected[start:stop])


@pytest.mark.parametrize("compression", ["none", "blosc"])
def test_another_whole_shard_is_refused_before_any_of_its_rows_is_read(compression: Compression) -> None:
    ours, other = (layout_of(compression).encode_shard(values(seed)) for seed in (0, 1))
    opened(compression, other, other)
    with pytest.raises(CorruptObject, match=r"the shard (is not what was committed|has)"):
        opened(compression, other, ours)


@given(seed=st.integers(0, 10**6), taken=st.integers(0, 2))
def test_a_chunk_put_in_anothers_place_is_refused(seed: int, taken: int) -> None:
    """With its own right checksum: it is the list of checksums that is not the committed one."""
    data = layout_of("none").encode_shard(values(seed))
    chunks = [data[first : first + 28] for first in (0, 28, 56)]
    chunks[taken], chunks[taken - 1] = chunks[taken - 1], chunks[taken]
    with pytest.raises(CorruptObject, match="are not those it was made of"):
        opened("none", b"".join([*chunks, data[84:]]), data)


@pytest.mark.parametrize("compression", ["none", "blosc"])
def test_every_flipped_bit_is_found_when_opened_or_by_who_takes_rows_of_its_chunk(
    compression: Compression,
) -> None:
    expected = values(0)
    data = layout_of(compression).encode_shard(expected)
    for place in range(len(data)):
        for bit in range(8):
            try:
                shard = opened(compression, flip(data, place, bit), data)
            except CorruptObject:
                continue
            refused = 0
            for chunk in range(3):
                rows = np.arange(chunk * 4, min(ROWS, chunk * 4 + 4))
                try:
                    found = shard.take(rows).view("<f2").reshape(-1, 3)
                except CorruptObject:
                    refused += 1
                else:
                    assert np.array_equal(found, expected[rows])
            assert refused == 1


def test_unpacked_chunks_are_counted_and_what_would_unpack_to_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = layout_of("blosc").encode_shard(values(0))
    shard = opened("blosc", data, data)
    assert shard.held_bytes == 0
    shard.take(np.array([0, 5]))
    assert shard.held_bytes == 2 * 24
    monkeypatch.setattr(growth, "ALWAYS_BYTES", 71)
    monkeypatch.setattr(growth, "_MOST_GROWTH", 0)
    with pytest.raises(CorruptObject, match="unpacks to 72 bytes"):
        opened("blosc", data, data)
