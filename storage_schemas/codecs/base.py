"""What a codec is: logits in, named columns out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import CodecSpec
from softcask.storage_schemas.softmax import check_temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One array that a codec writes, a row of it for each row of logits.

    Attributes:
        name: Name of the array within the logits group.
        dtype: Little-endian numpy dtype.
        row_shape: Shape of one row.
        dimension_names: Names of all dimensions, "row" first.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    dimension_names: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row before compression."""
        return self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Logits as they come back.

    Attributes:
        shifted_BC: float32 `[B, C]`, each row shifted so that its largest logit is 0.
        row_max_B: float32 `[B]`; `shifted_BC + row_max_B[:, None]` are the raw logits.
    """

    shifted_BC: NDArray[np.float32]
    row_max_B: NDArray[np.float32]


class Codec(Protocol):
    """A way to keep logits. Frozen, picklable, and rebuilt from a store by its name and configuration.

    Attributes:
        name: What stores call it.
        temperatures: Least and largest temperature for which it claims its accuracy.
    """

    name: ClassVar[str]
    temperatures: ClassVar[tuple[float, float]]

    @classmethod
    def from_spec(cls, spec: CodecSpec) -> Self:
        """The codec that `spec` describes.

        Raises:
            StoreError: The configuration does not fit this codec.
        """

    def to_spec(self) -> CodecSpec:
        """Name, configuration and container, as a teacher's manifest keeps them."""

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """The arrays it writes for rows of `num_classes` logits."""

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`."""

    def decode(self, columns: Mapping[str, NDArray[Any]]) -> Decoded:
        """Logits from columns of B rows."""


def check_claim(codec: Codec, temperature: float, whose: str) -> None:
    """Refuse a temperature for which a codec makes no claim.

    Args:
        codec: What keeps the logits.
        temperature: T that soft targets are wanted at.
        whose: Whose logits, for the message.

    Raises:
        ConfigError: T is not finite or not above 0.
        StoreError: It is outside the codec's range.
    """
    least, most = codec.temperatures
    if not least <= check_temperature(temperature) <= most:
        raise StoreError(
            f"temperature {temperature:g} asked of {whose}, whose codec {codec.name} is good for {least:g} "
            f"to {most:g}; choose T in that range"
        )
