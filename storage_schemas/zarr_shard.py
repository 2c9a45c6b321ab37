"""A shard as it is read: verified as far as it is touched, its rows gathered from where they lie.

What has to be read before a first row can be trusted is the checksums of the chunks, the seal over them and
the index, not the chunks. The CRC-32C of a chunk with its own checksum behind it is one and the same whatever
it holds. So the CRC-32C of a shard whose chunks are all right follows from their lengths, the seal and the
index. Where that is the one that was committed, the seal is the committed one, and with it are all chunks'
checksums; a chunk that matches its own is then what was committed. A flipped bit anywhere, or another shard
in this one's place, fails at one of these steps.
"""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas import zarr_chunks
from softcask.storage_schemas.checksum import crc32c, crc32c_joined
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.growth import check_growth

CRC_BYTES = 4
ABSENT = np.uint64(2**64 - 1)

_VALID = crc32c(bytes(CRC_BYTES))
"""CRC-32C of any bytes with their own CRC-32C behind them; no bytes have 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGrid:
    """How a shard is cut.

    Attributes:
        rows: Rows that it holds.
        row_bytes: Bytes of a row.
        itemsize: Bytes of a value.
        chunk_rows: Rows a chunk.
        chunks: Places in its index.
        packed: Whether chunks are packed by Blosc.
    """

    rows: int
    row_bytes: int
    itemsize: int
    chunk_rows: int
    chunks: int
    packed: bool

    @property
    def used(self) -> int:
        """Chunks that hold rows; the index has no others."""
        return -(-self.rows // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, unpacked, without its checksum."""
        return self.chunk_rows * self.row_bytes

    @property
    def tail_bytes(self) -> int:
        """Bytes of the seal and of the index with its checksum."""
        return CRC_BYTES + self.chunks * 16 + CRC_BYTES


class OpenShard:
    """A shard in memory or mapped from a file. Safe to share between threads.

    Attributes:
        held_bytes: Bytes of unpacked chunks that it keeps.
        verified: A byte a chunk, 1 once its checksum was found right.
    """

    def __init__(
        self,
        raw: NDArray[np.uint8],
        grid: ShardGrid,
        key: str,
        *,
        committed: int | None = None,
        verified: bytearray | None = None,
        always: bool = False,
    ) -> None:
        """Verify all but the chunks.

        Args:
            raw: All its bytes. They must not change, and it keeps them.
            grid: How it is cut.
            key: Name of the object, for messages.
            committed: CRC-32C of the whole object as committed; None where the caller has verified it.
            verified: Of an earlier `OpenShard` of the very same bytes: which chunks need no other look.
            always: Verify a chunk whenever rows are taken from another one than the last; else once.
                Packed chunks are verified when they are unpacked.

        Raises:
            CorruptObject: Cut short, not what was committed, or chunks lie elsewhere than this format has
                them.
        """
        self._raw, self._grid, self._key = raw, grid, key
        self._always = always and not grid.packed
        self._ends, self._checksums = verified_chunks(raw, grid, key, committed)
        self.verified = verified if verified is not None and not grid.packed else bytearray(grid.used)
        self._verified_K = np.frombuffer(self.verified, dtype=np.bool_)
        self._all = not self._always and 0 not in self.verified
        self._lock = threading.Lock()
        self.held_bytes = 0
        if grid.packed:
            check_growth(len(raw), grid.used * grid.chunk_bytes, key)
        memory = np.empty(grid.used * grid.chunk_bytes, dtype=np.uint8) if grid.packed else raw
        self._memory, self._gap = memory, 0 if grid.packed else CRC_BYTES
        step = math.gcd(grid.row_bytes, self._gap)
        self._row_steps, self._gap_steps = grid.row_bytes // step, self._gap // step
        self._row_at = overlapping(memory[: grid.used * (grid.chunk_bytes + self._gap)], grid.row_bytes, step)

    def take(self, places_B: NDArray[np.int64]) -> NDArray[np.void]:
        """Rows `[B]` by their places in the shard, each as its bytes.

        Raises:
            CorruptObject: A chunk does not match its checksum, or does not unpack.
        """
        chunk_B = places_B // self._grid.chunk_rows
        if not self._all and not self._verified_K[chunk_B].all():
            self._verify(np.unique(chunk_B).tolist())
        taken_B: NDArray[np.void] = self._row_at[places_B * self._row_steps + chunk_B * self._gap_steps]
        return taken_B

    def copy(self, start: int, stop: int, into: NDArray[np.uint8]) -> None:
        """Rows from `start` to `stop` into bytes as long as they are; raises as `take` does."""
        size, rows = self._grid.row_bytes, self._grid.chunk_rows
        for chunk in range(start // rows, -(-stop // rows)):
            first, end = max(start, chunk * rows), min(stop, (chunk + 1) * rows)
            target = into[(first - start) * size : (end - start) * size]
            if not self.verified[chunk]:
                if self._grid.packed and end - first == rows:
                    # All that there is to it goes where it is wanted, and need not be kept beside.
                    self._unpack(chunk, target)
                    continue
                self._verify([chunk])
            gap = chunk * self._gap
            target[:] = self._memory[first * size + gap : end * size + gap]

    def _verify(self, chunks: list[int]) -> None:
        with self._lock:
            fresh = [number for number in chunks if not self.verified[number]]
            for number in fresh:
                self._verify_one(number)
            if self._always:
                self.verified[:] = bytes(len(self.verified))
                fresh = fresh[-1:]
            for number in fresh:
                self.verified[number] = 1
            self._all = not self._always and 0 not in self.verified

    def _verify_one(self, number: int) -> None:
        if self._grid.packed:
            size = self._grid.chunk_bytes
            self._unpack(number, self._memory[number * size : (number + 1) * size])
            self.held_bytes += size
        else:
            self._checked(number)

    def _unpack(self, number: int, into: NDArray[np.uint8]) -> None:
        what = f"chunk {number} of {self._key}"
        zarr_chunks.unpack(self._checked(number), self._grid.itemsize, into, what)

    def _checked(self, number: int) -> NDArray[np.uint8]:
        """The bytes of a chunk, which match its checksum."""
        first, end = (int(self._ends[number - 1]) if number else 0), int(self._ends[number]) - CRC_BYTES
        chunk = self._raw[first:end]
        if crc32c(chunk) != int(self._checksums[number]):
            raise CorruptObject(f"chunk {number} of {self._key} does not match its checksum; it is damaged")
        return chunk


def verified_chunks(
    raw: NDArray[np.uint8], grid: ShardGrid, key: str, committed: int | None
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Where each chunk of a shard ends, its checksum behind it, and that checksum: `[used]` each.

    All but the chunks is verified; for the arguments and what is raised see `OpenShard`.
    """
    ends = _chunk_ends(raw, grid, key)
    checksums = _checksums(raw, ends)
    body = int(ends[-1]) if grid.used else 0
    seal = raw[body : body + CRC_BYTES].tobytes()
    if crc32c(checksums.tobytes()).to_bytes(CRC_BYTES, "little") != seal:
        raise CorruptObject(f"the chunks of {key} are not those it was made of; it is damaged")
    if committed is not None:
        valid = _of_valid_chunks(tuple(np.diff(ends, prepend=0).tolist()))
        if crc32c_joined([(valid, body), (crc32c(raw[body:]), len(raw) - body)]) != committed:
            raise CorruptObject(f"{key} is not what was committed; it is damaged, or another is in its place")
    return ends, checksums


def overlapping(memory: NDArray[np.uint8], size: int, step: int) -> NDArray[np.void]:
    """`size` bytes from every `step`-th byte on, as one value each, for a gather by vector."""
    if len(memory) < size:
        return np.empty(0, dtype=f"V{size}")
    first = memory[:size].view(f"V{size}")
    return np.lib.stride_tricks.as_strided(
        first, shape=((len(memory) - size) // step + 1,), strides=(step,), writeable=False
    )


def _chunk_ends(raw: NDArray[np.uint8], grid: ShardGrid, key: str) -> NDArray[np.int64]:
    """Where each chunk with its checksum ends `[used]`, by an index that is verified and as we write it."""
    plain = grid.chunk_bytes + CRC_BYTES
    least, most = (CRC_BYTES + 1, plain + zarr_chunks.MOST_GROWTH) if grid.packed else (plain, plain)
    shortest, longest = (grid.used * size + grid.tail_bytes for size in (least, most))
    if not shortest <= len(raw) <= longest:
        expected = f"{shortest} to {longest}" if grid.packed else str(longest)
        raise CorruptObject(
            f"{key} has {len(raw)} bytes, a shard of {grid.rows} rows has {expected}; it is damaged"
        )
    index_bytes = raw[len(raw) - grid.tail_bytes + CRC_BYTES :]
    if crc32c(index_bytes[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little") != index_bytes[-CRC_BYTES:].tobytes():
        raise CorruptObject(f"the shard index of {key} does not match its checksum; it is damaged")
    index = np.frombuffer(index_bytes[:-CRC_BYTES].tobytes(), dtype="<u8").reshape(grid.chunks, 2)
    sizes = np.minimum(index[: grid.used, 1], np.uint64(most)).astype(np.int64)
    ends = np.cumsum(sizes)
    expected_index = np.full((grid.chunks, 2), ABSENT, dtype=np.uint64)
    expected_index[: grid.used, 0], expected_index[: grid.used, 1] = ends - sizes, sizes
    body = len(raw) - grid.tail_bytes
    if not np.array_equal(index, expected_index) or (sizes < least).any() or (grid.used and ends[-1] != body):
        raise CorruptObject(f"the shard index of {key} places its chunks otherwise than this format does")
    return ends


def _checksums(raw: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The checksums `[used]` that stand behind the chunks."""
    if not len(ends):
        return np.empty(0, dtype="<u4")
    behind: NDArray[np.uint32] = raw[ends[:, None] - CRC_BYTES + np.arange(CRC_BYTES)].view("<u4")
    return behind.reshape(-1)


@functools.lru_cache(maxsize=64)
def _of_valid_chunks(sizes: tuple[int, ...]) -> int:
    return crc32c_joined([(_VALID, size) for size in sizes])
