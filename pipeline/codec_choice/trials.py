"""Try codecs on a sample of a teacher's logits: bytes a row, and what is lost at each temperature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.codec_choice.request import AUTO, DEFAULT_BYTES, CodecRequest
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import TEMPERATURES, Loss, judge
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.manifest import Fidelity

FEWEST_CLASSES_LOWRANK = 512
"""Below, a head and a basis have nothing to gain over whole rows."""
TRIAL_BYTES = (64, 128, 256, 512)
"""Sizes that `lowrank` is tried at where no budget says one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A teacher's logits on rows of the transfer set, apart from each other.

    Attributes:
        calibration_RC: Float32 `[R, C]`, what a codec may be fitted on.
        held_out_RC: Float32 `[R', C]`, what it is judged on.
        output_layer: The teacher's output layer `[C, d]`, where it offers one.
    """

    calibration_RC: NDArray[np.float32]
    held_out_RC: NDArray[np.float32]
    output_layer: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one codec did.

    Attributes:
        label: The codec and its size, for tables.
        codec: Ready to use.
        row_bytes: Bytes a row on disk.
        once_bytes: Bytes that are kept once a teacher.
        losses: By temperature; of those that the codec makes a claim for.
    """

    label: str
    codec: Codec = field(repr=False)
    row_bytes: float
    once_bytes: int
    losses: dict[float, Loss]

    def worst(self, temperatures: tuple[float, ...]) -> float:
        """Largest mean KL over these temperatures; infinite where it makes no claim for one."""
        return max(
            self.losses[temperature].mean if temperature in self.losses else np.inf
            for temperature in temperatures
        )

    def expected(self) -> tuple[Fidelity, ...]:
        """What units are compared with."""
        return tuple(
            Fidelity(temperature=temperature, mean=loss.mean, max=loss.max)
            for temperature, loss in self.losses.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the codec."""
        losses = {f"{temperature:g}": loss.to_dict() for temperature, loss in self.losses.items()}
        return {
            "codec": self.label,
            "row_bytes": self.row_bytes,
            "once_bytes": self.once_bytes,
            "kl": losses,
        }


def run_trials(request: CodecRequest, sample: Sample, *, every: bool = False) -> Iterator[Trial]:
    """Try each codec that could meet the request; the named one alone where one is named.

    Args:
        request: With a name; see `CodecRequest.resolved`.
        sample: The teacher's logits.
        every: Also those that the request does not name or has no room for, for who wants to compare.
    """
    classes = sample.held_out_RC.shape[1]
    everything = every or request.name == AUTO
    temperatures = tuple(sorted({*TEMPERATURES, *request.temperatures}))
    for codec in (Dense16(), Dense8()):
        fits = every or request.max_bytes is None or _fixed_bytes(codec, classes) <= request.max_bytes
        if request.name == codec.name or (everything and fits):
            yield _judged(codec.name, codec, _fixed_bytes(codec, classes), sample, temperatures)
    if (everything or request.name == TopK.name) and (head := head_size(request, classes)):
        topk = topk_codec(head, classes, temperatures)
        yield _judged(f"topk k={head}", topk, _fixed_bytes(topk, classes), sample, temperatures)
    if request.name == "lowrank" or (everything and classes >= FEWEST_CLASSES_LOWRANK):
        yield from _lowrank_trials(request, sample, temperatures)


def _lowrank_trials(
    request: CodecRequest, sample: Sample, temperatures: tuple[float, ...]
) -> Iterator[Trial]:
    # Imported here: whoever names a dense codec need not wait for what fits this one.
    from softcask.storage_schemas.codecs.lowrank.calibration import Calibration

    calibration = Calibration.of(
        sample.calibration_RC,
        sample.held_out_RC,
        temperatures=request.temperatures,
        coder=request.coder,
        output_layer=sample.output_layer,
    )
    for max_bytes in TRIAL_BYTES if request.max_bytes is None else (request.max_bytes,):
        with suppress(ConfigError):  # no room for a single class
            fitted = calibration.within_bytes(max_bytes)
            yield _judged(f"lowrank {max_bytes} B", fitted.codec, fitted.row_bytes, sample, temperatures)


def topk_codec(head: int, classes: int, temperatures: tuple[float, ...]) -> TopK:
    """`topk` with its tail's mass exact at these temperatures."""
    return TopK(settings=Settings(num_classes=classes, head_size=head, temperatures=temperatures))


def head_size(request: CodecRequest, classes: int) -> int:
    """Logits a row that `topk` keeps: as many as asked for, or as there is room for; 0 where for none."""
    if request.k is not None:
        return min(request.k, classes)  # some may be absent
    one, two = (_fixed_bytes(topk_codec(k, classes, TEMPERATURES), classes) for k in (1, 2))
    room = (request.max_bytes or DEFAULT_BYTES) - one
    return max(0, min(classes, 1 + int(room // (two - one))))


def _fixed_bytes(codec: Codec, classes: int) -> float:
    return float(sum(column.row_bytes for column in codec.columns(classes)))


def _judged(
    label: str, codec: Codec, row_bytes: float, sample: Sample, temperatures: tuple[float, ...]
) -> Trial:
    losses = judge(codec, sample.held_out_RC, temperatures)
    once = sum(values.nbytes for values in codec.arrays().values())
    return Trial(label=label, codec=codec, row_bytes=row_bytes, once_bytes=once, losses=losses)
