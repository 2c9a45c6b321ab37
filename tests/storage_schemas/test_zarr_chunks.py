from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import Blosc
from numpy.typing import NDArray

from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.zarr_chunks import MOST_GROWTH, blosc_configuration, pack, unpack


def raw(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def packed_logits(rows: int = 64) -> tuple[NDArray[np.uint8], bytes]:
    logits = np.random.default_rng(0).normal(0, 3, (rows, 100))
    plain = (logits - logits.max(axis=1, keepdims=True)).astype("<f2").view(np.uint8).reshape(-1)
    return plain, pack(plain, 2)


@given(data=st.binary(min_size=8, max_size=400), itemsize=st.sampled_from([1, 2, 4, 8]))
def test_what_is_packed_unpacks_and_is_never_much_longer(data: bytes, itemsize: int) -> None:
    plain = raw(data)[: len(data) // itemsize * itemsize]
    packed = pack(plain, itemsize)
    into = np.zeros_like(plain)
    unpack(raw(packed), itemsize, into, "chunk 0")
    assert np.array_equal(into, plain)
    assert len(packed) <= len(plain) + MOST_GROWTH
    assert Blosc().decode(packed) == plain.tobytes()


def test_half_precision_logits_shrink_by_a_quarter_in_one_block() -> None:
    plain, packed = packed_logits(5_000)
    assert len(packed) < 0.75 * len(plain)
    assert int.from_bytes(packed[8:12], "little") == len(plain)
    assert blosc_configuration(2, len(plain))["blocksize"] == len(plain)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 1),
        (0, 9),
        (2, 0x00),
        (2, 0x21),
        (2, 0x41),
        (3, 4),
        (4, 0xFF),
        (7, 0x7F),
        (11, 0x7F),
        (12, 0),
        (15, 1),
    ],
    ids=lambda value: str(value),
)
def test_a_header_that_says_anything_else_is_refused(place: int, value: int) -> None:
    """Version, compressor, size of a value, unpacked, block, packed size: by Blosc's published header."""
    plain, packed = packed_logits()
    forged = bytearray(packed)
    forged[place] = value
    with pytest.raises(CorruptObject, match="chunk 7 says"):
        unpack(raw(bytes(forged)), 2, np.empty_like(plain), "chunk 7")


@given(seed=st.integers(0, 10**6), flips=st.integers(1, 20))
def test_bytes_that_do_not_unpack_are_refused_or_give_other_bytes_of_the_same_number(
    seed: int, flips: int
) -> None:
    """Checksums have been verified before: what comes here broken was made so. It must not crash."""
    plain, packed = packed_logits()
    rng = np.random.default_rng(seed)
    forged = raw(packed).copy()
    forged[rng.integers(16, len(forged), flips)] = rng.integers(0, 256, flips)
    guarded = np.full(len(plain) + 64, 77, dtype=np.uint8)
    with contextlib.suppress(CorruptObject):
        unpack(forged, 2, guarded[: len(plain)], "chunk 0")
    assert (guarded[len(plain) :] == 77).all()


@pytest.mark.parametrize("size", [0, 1, 15, 16])
def test_a_chunk_cut_short_is_refused(size: int) -> None:
    plain, packed = packed_logits()
    with pytest.raises(CorruptObject, match="chunk 0"):
        unpack(raw(packed[:size]), 2, np.empty_like(plain), "chunk 0")
