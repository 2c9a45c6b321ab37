"""What is done where a teacher's logits are: encoding, looking for NaN, and clocks that do not wait.

Only columns cross to the host, into pinned memory, while the next batch is computed. Torch is imported here,
so this file is imported by whoever has loaded a teacher of torch's.

What is special to CUDA (streams, events, pinned memory) was written without a GPU at hand and has not run
yet; all else runs in the tests, on the CPU as a device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from softcask.pipeline.device_codecs.base import DeviceCodec, to_arrays
from softcask.pipeline.device_codecs.registry import DEVICE_CODECS, device_codec
from softcask.pipeline.store.writing.encoding import EncodedUnit, encoded_unit, watched_rows
from softcask.pipeline.teachers.torch_teacher import is_out_of_memory
from softcask.storage_schemas.absent import Absent, present_classes
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.errors import StoreError, TeacherOutOfMemory

_FASTER_ON_HOST = (Dense16.name,)
"""Codecs whose twin gives the same bits, and on a CPU faster: 0.6 us a row of 1000 logits instead of 1.7."""


class DeviceEncoder:
    """Takes the batches of one unit in order, as `UnitEncoder` does, on a device that is not waited for."""

    def __init__(
        self, codec: Codec, twin: DeviceCodec, *, rows: int, num_classes: int, absent: Absent = ()
    ) -> None:
        """Begin a unit of `rows` rows that have logits.

        Args:
            codec: What keeps them.
            twin: Its twin, on the device.
            rows: How many.
            num_classes: Logits a row, of all classes.
            absent: Those that are -inf in every row, and not stored.
        """
        self._codec, self._twin, self._done = codec, twin, 0
        self._absent = torch.tensor(absent, dtype=torch.int64, device=twin.device)
        present = present_classes(num_classes, absent)
        self._present = torch.tensor(present, device=twin.device) if absent else None
        self._watched = watched_rows(codec, rows)
        pinned = twin.device.type == "cuda"
        self._columns = {
            column.name: _room(column.dtype, rows, column.row_shape, pinned=pinned)
            for column in codec.columns(len(present))
        }
        self._top = _room(np.dtype(np.int64), rows, pinned=pinned)
        self._usable = _room(np.dtype(np.bool_), rows, pinned=pinned)
        self._kept = _room(np.dtype(np.float32), len(self._watched), (len(present),), pinned=pinned)

    def add(self, logits_BC: torch.Tensor) -> slice:
        """Encode the next batch, float32 `[B, C]` on the device; which of the unit's rows it is.

        Raises:
            TeacherOutOfMemory: There is no memory left to encode it; nothing was added.
        """
        rows = slice(self._done, self._done + len(logits_BC))
        first, stop = np.searchsorted(self._watched, [rows.start, rows.stop])
        try:
            with torch.inference_mode():
                usable_B = torch.isneginf(logits_BC[:, self._absent]).all(dim=1)
                if self._present is not None:
                    logits_BC = logits_BC.index_select(1, self._present)
                usable_B &= torch.isfinite(logits_BC).all(dim=1)
                # Of logits that are not finite come columns that mean nothing; `usable` tells.
                for name, values in self._twin.encode(logits_BC).items():
                    self._columns[name][rows].copy_(values, non_blocking=True)
                self._top[rows].copy_(logits_BC.argmax(dim=1), non_blocking=True)
                self._usable[rows].copy_(usable_B, non_blocking=True)
                # One by one: to bring their places to the device, the host would have to wait for it.
                for kept in range(first, stop):
                    row = int(self._watched[kept]) - rows.start
                    self._kept[kept].copy_(logits_BC[row], non_blocking=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            told = str(error).partition("\n")[0]
        else:
            self._done = rows.stop
            return rows
        raise TeacherOutOfMemory(
            f"no memory to encode {len(logits_BC)} rows by {self._codec.name} on {logits_BC.device}: {told}"
        )

    def usable(self, rows: slice) -> bool:
        """Whether all logits of rows that were added, and whose batch is through, can be stored."""
        return bool(self._usable[rows].all())

    def finish(self) -> EncodedUnit:
        """All batches as one; the last must be through."""
        columns = to_arrays(self._columns)
        return encoded_unit(self._codec, columns, self._top.numpy(), self._watched, self._kept.numpy())


class Mark(Protocol):
    """A moment in what a device does."""

    def wait(self) -> None:
        """Until the device has come to it."""

    def since(self, earlier: Any) -> float:
        """Seconds from an earlier one; both must have passed."""


class HostMark:
    """The moment when it is made: a CPU has done by then what it was told."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def wait(self) -> None:
        """Nothing to wait for."""

    def since(self, earlier: HostMark) -> float:
        """See `Mark.since`."""
        return self._time - earlier._time


class CudaMark:
    """A moment in the current stream of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """See `Mark.wait`."""
        self._event.synchronize()

    def since(self, earlier: CudaMark) -> float:
        """See `Mark.since`."""
        return float(earlier._event.elapsed_time(self._event)) / 1000


def mark(device: torch.device) -> Mark:
    """Now, as the device sees it."""
    return CudaMark(device) if device.type == "cuda" else HostMark()


def take_own_stream(device: torch.device) -> None:
    """Let this thread compute on a stream of its own: others' work on the device does not hold it up."""
    if device.type == "cuda" and torch.cuda.current_stream(device) == torch.cuda.default_stream(device):
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def twin_of(codec: Codec, device: torch.device) -> DeviceCodec | None:
    """A codec's twin on a card; None where it has none, or where it is not known when a device has ended."""
    if device.type != "cuda" or codec.name not in DEVICE_CODECS:
        return None
    try:
        return device_codec(codec, device)
    except StoreError:  # one that is coded row by row
        return None


def encode_on_host(codec: Codec) -> Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]:
    """What gives a codec's columns of logits on the host: the codec, or its twin where that is faster."""
    if codec.name not in _FASTER_ON_HOST:
        return codec.encode
    twin = device_codec(codec, "cpu")
    return lambda logits_BC: to_arrays(twin.encode(torch.from_numpy(logits_BC)))


def _room(dtype: np.dtype[Any], rows: int, row_shape: tuple[int, ...] = (), *, pinned: bool) -> torch.Tensor:
    kind = torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    return torch.empty((rows, *row_shape), dtype=kind, pin_memory=pinned)
