"""Rows that lie encoded, each by itself: from bytes to an array, several at a time, bad ones told."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.transfer_sets.text import TEXT
from softcask.storage_schemas.errors import TransferSetError

_MOST_THREADS = 8
_LOOKED_AT = 64
_MOST_BYTES = 1 << 30


class Unreadable(Exception):
    """One row cannot be read; the message is the reason that its quarantine gives."""


class Decoder(Protocol):
    """One row's bytes to its numbers or its text. Used by several threads at once."""

    @property
    def advice(self) -> str:
        """What to do about rows of different shapes."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of a row, None where the first row decides."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Element type of a row, None where the first row decides."""

    def decode(self, data: bytes) -> Any:
        """The row, an array or a `str`.

        Raises:
            Unreadable: Not what this decodes, or damaged.
        """


@dataclass(frozen=True, slots=True)
class TextDecoder:
    """UTF-8."""

    advice = ""
    shape = ()
    dtype = TEXT

    def decode(self, data: bytes) -> str:
        """The text.

        Raises:
            Unreadable: Not UTF-8.
        """
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(f"not UTF-8: {error}") from error


@dataclass(frozen=True, slots=True)
class NpyDecoder:
    """A `.npy` file, never unpickled."""

    advice = "save all alike"
    shape = None
    dtype = None

    def decode(self, data: bytes) -> NDArray[Any]:
        """The array, in this machine's byte order.

        Raises:
            Unreadable: Not a whole `.npy` of numbers.
        """
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise Unreadable(f"not a .npy array of numbers: {error}") from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise Unreadable("not a .npy array of numbers")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, slots=True)
class RawDecoder:
    """Elements and nothing else, little-endian, in C order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    advice = ""

    def decode(self, data: bytes) -> NDArray[Any]:
        """The array.

        Raises:
            Unreadable: Another number of bytes.
        """
        expected = int(np.prod(self.shape)) * self.dtype.itemsize
        if len(data) != expected:
            raise Unreadable(f"{len(data)} bytes, expected {expected} for {self.dtype} {list(self.shape)}")
        stored = np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(self.shape)
        return stored.astype(self.dtype, copy=False)


def settle(
    decoder: Decoder, cells: Iterable[bytes | None], place: str
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of all rows: the decoder's own, or those of the first row that can be read.

    Args:
        decoder: Of the rows.
        cells: The first rows' bytes, read as far as needed.
        place: Where they lie, for messages.

    Raises:
        TransferSetError: None of the first rows can be read, or they are no rows.
    """
    if decoder.shape is not None and decoder.dtype is not None:
        return decoder.shape, decoder.dtype
    reason = "there are none"
    for cell, _ in zip(cells, range(_LOOKED_AT), strict=False):
        try:
            first = np.asarray(decoder.decode(_present(cell)))
        except Unreadable as error:
            reason = str(error)
            continue
        if 0 in first.shape or first.nbytes > _MOST_BYTES:
            raise TransferSetError(
                f"{place}: the first row is of shape {list(first.shape)}, expected at least one number and "
                f"at most {_MOST_BYTES} bytes"
            )
        return first.shape, first.dtype
    raise TransferSetError(
        f"{place}: none of the first rows can be read ({reason}), so their shape is not known; state it in "
        "[transfer_set] (height and width of images), or repair them"
    )


def decode_into(
    decoder: Decoder,
    cells: Sequence[bytes | None],
    inputs_B: NDArray[Any],
    places: Sequence[int],
    threads: int | None,
) -> dict[int, str]:
    """Decode cells into rows of a batch; a row that fails is left as it is.

    Args:
        decoder: Of the cells.
        cells: Bytes of each, None where there are none.
        inputs_B: The batch, zeros where nothing is yet.
        places: Row of the batch for each cell.
        threads: How many decode at once, None for as many as there are cores, up to 8.

    Returns:
        Row of the batch -> why it could not be read.
    """

    def one(place: int, cell: bytes | None) -> str | None:
        try:
            put(decoder.decode(_present(cell)), inputs_B, place, decoder.advice)
        except Unreadable as error:
            return str(error)
        return None

    reasons = in_threads(one, places, cells, threads=threads)
    return {place: reason for place, reason in zip(places, reasons, strict=True) if reason is not None}


def put(row: Any, inputs_B: NDArray[Any], place: int, advice: str = "") -> None:
    """Put a decoded row into a batch.

    Args:
        row: An array or a string.
        inputs_B: The batch.
        place: Which row of it.
        advice: What to do if it does not fit.

    Raises:
        Unreadable: It is of another shape or type than the batch's rows.
    """
    if isinstance(row, np.ndarray):
        if row.shape != inputs_B.shape[1:]:
            found = f"shape {list(row.shape)}, expected {list(inputs_B.shape[1:])}"
            raise Unreadable(f"{found}; {advice}" if advice else found)
        if row.dtype != inputs_B.dtype:
            raise Unreadable(f"numbers of type {row.dtype}, expected {inputs_B.dtype}")
    inputs_B[place] = row


def in_threads(work: Callable[..., Any], *arguments: Sequence[Any], threads: int | None) -> list[Any]:
    """`map` by several threads, in order; they end with the call, so that a process may fork later."""
    most = min(threads or default_threads(), len(arguments[0]))
    if most < 2:
        return list(map(work, *arguments))
    with ThreadPoolExecutor(most, "decode") as pool:
        return list(pool.map(work, *arguments))


def default_threads() -> int:
    """Cores that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def _present(cell: bytes | None) -> bytes:
    if cell is None:
        raise Unreadable("no bytes (null, or no more than the path of a file)")
    return cell
