"""Random numbers by counter: what is drawn for a row depends on (seed, sample_id, view, step) alone.

Philox4x32-10 ("Parallel random numbers: as easy as 1, 2, 3", Salmon et al., SC 2011), for all rows of a
batch at once. Written out here, because numpy's generators are made one a row at 10 us each, and because
their streams may change with numpy's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

PARTNER = (1 << 32) - 1
"""The stream that a row's partner is drawn from; steps are numbered from 0."""


def row_keys(sample_ids: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """A key `[B]` a row: the first 8 bytes, little-endian, of the SHA-256 of `"{seed} {sample_id}"`."""
    started = sha256(f"{seed} ".encode())
    digests = bytearray()
    for sample_id in sample_ids:
        digest = started.copy()
        digest.update(sample_id.encode())
        digests += digest.digest()[:8]
    return np.frombuffer(bytes(digests), "<u8").astype(np.uint64, copy=False)


def philox(counter_4B: Sequence[NDArray[np.uint64]], key_B: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox4x32-10.

    Args:
        counter_4B: Four words `[B]` below 2^32, or `[1]`.
        key_B: `[B]`; its low half is the first word of the key.

    Returns:
        `[4, B]` words below 2^32.
    """
    first, second, third, fourth = (np.broadcast_to(word, key_B.shape) for word in counter_4B)
    low, high = key_B & _WORD, key_B >> _HALF
    for _ in range(_ROUNDS):
        left, right = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            (right >> _HALF) ^ second ^ low,
            right & _WORD,
            (left >> _HALF) ^ fourth ^ high,
            left & _WORD,
        )
        low, high = (low + _WEYL[0]) & _WORD, (high + _WEYL[1]) & _WORD
    return np.stack([first, second, third, fourth])


@dataclass(slots=True)
class Draws:
    """What one step draws for the B rows of a batch; each call goes on where the last one ended.

    Attributes:
        sample_ids: The rows' ids, for messages.
        key_B: Their keys, see `row_keys`.
        view: Number of the view.
        step: Place of the step among the steps.
    """

    sample_ids: Sequence[str]
    key_B: NDArray[np.uint64]
    view: int
    step: int
    _block: int = field(default=0, init=False)

    def __len__(self) -> int:
        """B."""
        return len(self.key_B)

    def words(self, count: int) -> NDArray[np.uint64]:
        """64 random bits, `[B, count]`."""
        blocks = [self._next() for _ in range(-(-count // 2))]
        pairs = [block[2 * half] | block[2 * half + 1] << _HALF for block in blocks for half in (0, 1)]
        return np.stack(pairs[:count], axis=1) if pairs else np.empty((len(self), 0), np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers in [0, 1), multiples of 2^-53, `[B, count]`."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, limits: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Whole numbers `[B]` from 0 to `limits` - 1."""
        return np.floor(self.uniform(1)[:, 0] * limits).astype(np.int64)

    def chosen(self, probability: float) -> NDArray[np.bool_]:
        """`[B]`, True with this probability."""
        return np.asarray(self.uniform(1)[:, 0] < probability)

    def symmetric_beta(self, alpha: float) -> NDArray[np.float64]:
        """Numbers `[B]` of Beta(alpha, alpha), as multiples of 2^-16.

        Two uniform numbers a draw, and nothing is rejected: `(1 + T / sqrt(2 alpha + T^2)) / 2` of a
        Student's T with 2 alpha degrees of freedom, which is `sqrt(2 alpha (U^(-1 / alpha) - 1)) cos(2 pi
        V)` (Bailey, "Polar generation of random variates with the t-distribution", 1994). Rounded, because
        processors differ in the last bit of a power.
        """
        uniform_B2 = self.uniform(2)
        cosine_B = np.cos(2 * np.pi * uniform_B2[:, 1])
        with np.errstate(divide="ignore", over="ignore"):  # of U = 0 the limit is right
            power_B = (uniform_B2[:, 0] ** (-1 / alpha) - 1) * cosine_B**2
            half_B = 0.5 / np.sqrt(1 + 1 / power_B)
        # The cosine's sign is independent of its square.
        shares_B: NDArray[np.float64] = np.round((0.5 + np.copysign(half_B, cosine_B)) * 2**16) / 2**16
        return shares_B

    def generators(self) -> Iterator[np.random.Generator]:
        """Numpy's own, one a row, for code that wants one."""
        stream = np.uint64(self.step << 32 | self.view)
        for key in self.key_B:
            yield np.random.Generator(np.random.Philox(key=np.array([key, stream])))

    def _next(self) -> NDArray[np.uint64]:
        counter = (self._block, self.step, self.view, 0)
        self._block += 1
        return philox([np.full(1, word, np.uint64) for word in counter], self.key_B)
