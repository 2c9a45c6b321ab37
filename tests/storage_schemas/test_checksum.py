from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from softcask.storage_schemas.checksum import crc32c, crc32c_hex, crc32c_joined

# RFC 3720, B.4: the iSCSI test vectors of CRC-32C, and the check value of the Rocksoft model.
VECTORS = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
    b"123456789": 0xE3069283,
}


def test_the_checksum_is_the_published_one() -> None:
    for data, expected in VECTORS.items():
        assert crc32c(data) == expected
        assert crc32c(np.frombuffer(data, dtype=np.uint8)) == expected
        assert crc32c_hex(data) == f"{expected:08x}"


def test_leading_zeros_are_written() -> None:
    assert crc32c_hex(b"") == "00000000"


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(0, 100_000))
def test_the_checksum_of_pieces_is_that_of_all_their_bytes(pieces: list[bytes], zeros: int) -> None:
    pieces = [*pieces, bytes(zeros), b"end"]
    assert crc32c_joined((crc32c(piece), len(piece)) for piece in pieces) == crc32c(b"".join(pieces))
    assert crc32c_joined([]) == 0
