"""Encode a unit batch by batch, so that its logits never stand in memory as a whole.

A unit of a language model's logits would take gigabytes before the codec and megabytes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.fidelity import TEMPERATURES, divergence
from softcask.storage_schemas.errors import CodecDrift
from softcask.storage_schemas.manifest import Fidelity

_REMARKABLE, _TOO_MUCH = 4, 25
"""How much worse than expected: means over few rows of a heavy-tailed loss are a factor of two apart."""
_ALWAYS_FINE, _HARMFUL = 1e-4, 0.05
"""In nats, whatever was expected: what no student notices, and what any does."""
_BLOCK_VALUES = 1 << 17
"""Logits encoded together, half a megabyte: batches of few classes cost more in calls than in rows."""
MONITORED_ROWS = 32
"""Rows of each unit whose logits are kept until the end, to see how well the codec did on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedUnit:
    """A unit's logits as its codec keeps them.

    Attributes:
        columns: By name, `[R, *row_shape]`, of the R rows that have logits.
        top_R: Their most probable class, by its place among the stored ones; ties go to the lower one.
        fidelity: KL(teacher || decoded) on a few rows; empty where the codec is exact enough by construction.
        batch_size: Rows a forward pass, where that is not fixed in the plan.
        may_differ: Why another pass over these rows may give other bits.
    """

    columns: Mapping[str, NDArray[Any]]
    top_R: NDArray[np.int64]
    fidelity: tuple[Fidelity, ...]
    batch_size: int | None = None
    may_differ: tuple[str, ...] = ()


def watched_rows(codec: Codec, rows: int) -> NDArray[np.int64]:
    """Places of the rows by which it is seen how well a codec did; none where it is exact enough."""
    watched = min(rows, MONITORED_ROWS) if codec.arrays() or not codec.keeps_logits else 0
    return np.linspace(0, rows - 1, watched).astype(np.int64)


def encoded_unit(
    codec: Codec,
    columns: Mapping[str, NDArray[Any]],
    top_R: NDArray[np.int64],
    watched_K: NDArray[np.int64],
    logits_KC: NDArray[np.float32],
) -> EncodedUnit:
    """A unit from its columns, and from the logits of its watched rows."""
    some = {name: values[watched_K] for name, values in columns.items()}
    least, most = codec.temperatures
    fidelity = tuple(
        _fidelity(logits_KC, codec.decode(some, temperature).shifted_BC, temperature)
        for temperature in (TEMPERATURES if len(watched_K) else ())
        if least <= temperature <= most
    )
    return EncodedUnit(columns=columns, top_R=top_R, fidelity=fidelity)


class UnitEncoder:
    """Takes the batches of one unit in order."""

    def __init__(
        self,
        codec: Codec,
        *,
        rows: int,
        num_classes: int,
        encode: Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]] | None = None,
    ) -> None:
        """Begin a unit of `rows` rows that have logits.

        Args:
            codec: What keeps them.
            rows: How many.
            num_classes: Logits a row.
            encode: What gives the very columns that `codec.encode` does, faster; None: that.
        """
        self._codec, self._encoded = codec, encode or codec.encode
        self._block_bC = np.empty((max(1, _BLOCK_VALUES // num_classes), num_classes), dtype=np.float32)
        self._waiting = 0
        self._columns: list[Mapping[str, NDArray[Any]]] = []
        self._top: list[NDArray[np.int64]] = []
        self._done = 0
        self._watched = watched_rows(codec, rows)
        self._kept: list[NDArray[np.float32]] = []

    def add(self, logits_BC: NDArray[np.float32]) -> None:
        """Encode the next batch: finite float32 `[B, C]`, which may change afterwards."""
        if self._waiting + len(logits_BC) > len(self._block_bC):
            self._encode_waiting()
        if len(logits_BC) > len(self._block_bC):
            self._encode(np.ascontiguousarray(logits_BC))
            return
        self._block_bC[self._waiting : self._waiting + len(logits_BC)] = logits_BC
        self._waiting += len(logits_BC)

    def _encode_waiting(self) -> None:
        if self._waiting:
            self._encode(self._block_bC[: self._waiting])
            self._waiting = 0

    def _encode(self, logits_BC: NDArray[np.float32]) -> None:
        self._columns.append(self._encoded(logits_BC))
        self._top.append(logits_BC.argmax(axis=1))
        first, stop = np.searchsorted(self._watched, [self._done, self._done + len(logits_BC)])
        self._kept.append(logits_BC[self._watched[first:stop] - self._done])
        self._done += len(logits_BC)

    def finish(self) -> EncodedUnit:
        """All batches as one."""
        self._encode_waiting()
        if not self._columns:
            self._encode(self._block_bC[:0])
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return encoded_unit(
            self._codec, columns, np.concatenate(self._top), self._watched, np.concatenate(self._kept)
        )


def drift(found: Sequence[Fidelity], expected: Sequence[Fidelity], whose: str) -> str | None:
    """What to tell of a unit on which a codec does worse than on the rows it was judged on; None if nothing.

    Args:
        found: On a few rows of the unit.
        expected: On the rows that the codec was chosen by.
        whose: Which teacher and unit, for the message.

    Raises:
        CodecDrift: It does so much worse that the rows cannot be of one kind.
    """
    usual = {known.temperature: known.mean for known in expected}
    for loss in found:
        if loss.temperature not in usual or loss.mean <= _ALWAYS_FINE:
            continue
        times = loss.mean / max(usual[loss.temperature], _ALWAYS_FINE)
        told = (
            f"{whose}: the codec loses {loss.mean:.2g} nats at T={loss.temperature:g} on "
            f"{MONITORED_ROWS} rows, {times:.0f} times the {usual[loss.temperature]:.2g} it was chosen by"
        )
        if times > _TOO_MUCH and loss.mean > _HARMFUL:
            raise CodecDrift(
                f"{told}. These rows are of another kind; nothing of this unit was committed. Give the "
                "teacher a new name, and let its codec be chosen by rows of all kinds (store.codec.rows)"
            )
        if times > _REMARKABLE:
            return told
    return None


def encode_unit(codec: Codec, logits_RC: NDArray[np.float32]) -> EncodedUnit:
    """A whole unit at once; for one that is small, or in memory already."""
    encoder = UnitEncoder(codec, rows=len(logits_RC), num_classes=logits_RC.shape[1])
    encoder.add(logits_RC)
    return encoder.finish()


def _fidelity(
    logits_KC: NDArray[np.float32], decoded_KC: NDArray[np.float32], temperature: float
) -> Fidelity:
    kl_K = divergence(logits_KC, decoded_KC, temperature)
    return Fidelity(temperature=temperature, mean=float(kl_K.mean()), max=float(kl_K.max()))
