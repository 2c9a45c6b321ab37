"""What a codec is: logits in, named columns out, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import CodecSpec
from softcask.storage_schemas.softmax import check_temperature

Container = Literal["zarr", "parquet"]
Columns = Mapping[str, NDArray[Any]]
"""Columns of B rows by name, each `[B, *row_shape]`."""
Arrays = Mapping[str, NDArray[Any]]
"""What a codec keeps once a teacher (a basis, say), by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One array that a codec writes, a row of it for each row of logits.

    Attributes:
        name: Name of the array within the logits group, or of the column in a Parquet part.
        dtype: Little-endian numpy dtype; `object` for strings of bytes of any length (Parquet only).
        row_shape: Shape of one row.
        dimension_names: Names of all dimensions, "row" first.
        split: Whether Parquet should split its bytes into streams before it compresses them.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    split: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row before compression; 0 where rows are of any length."""
        if self.dtype.hasobject:
            return 0
        return self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))

    def blank(self, rows: int) -> NDArray[Any]:
        """What stands in place of rows without logits: NaN, 0 or no bytes."""
        fill: Any = np.nan if self.dtype.kind == "f" else b"" if self.dtype.hasobject else 0
        return np.full((rows, *self.row_shape), fill, dtype=self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Logits as they come back.

    Attributes:
        shifted_BC: float32 `[B, C]`, each row shifted so that its largest logit is 0.
        row_max_B: float32 `[B]`; `shifted_BC + row_max_B[:, None]` are the raw logits. 0 where a codec
            does not keep it.
    """

    shifted_BC: NDArray[np.float32]
    row_max_B: NDArray[np.float32]


class Codec(Protocol):
    """A way to keep logits. Frozen, picklable, and rebuilt from a store by its spec and arrays.

    Attributes:
        name: What stores call it.
        container: Where its columns lie: Zarr arrays of fixed rows, or Parquet parts.
        keeps_logits: Whether `decode` gives logits that hold at any temperature (and may be matched, averaged
            or merged); if not, it gives what yields the soft targets at the one temperature asked for.
        keeps_row_max: Whether raw logits come back, and not only differences within a row.
    """

    name: ClassVar[str]
    container: ClassVar[Container]
    keeps_logits: ClassVar[bool]
    keeps_row_max: ClassVar[bool]

    @property
    def temperatures(self) -> tuple[float, float]:
        """Least and largest temperature for which it claims its accuracy."""

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        """The codec that `spec` describes.

        Args:
            spec: As a teacher's manifest has it; untrusted.
            arrays: What `arrays()` gave when it was made, verified against the spec's records; None suffices
                to ask for `columns` and `temperatures`.

        Raises:
            StoreError: The configuration or an array does not fit this codec.
        """

    def to_spec(self) -> CodecSpec:
        """Name, configuration and container, as a manifest keeps them; without records of arrays."""

    def arrays(self) -> Arrays:
        """What is kept once a teacher; empty for most."""

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """The arrays it writes for rows of `num_classes` logits."""

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`; a row's bytes depend on no other row."""

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits whose softmax at `temperature` is the teacher's.

        Args:
            columns: Of B rows, of the right dtypes and shapes but untrusted values.
            temperature: T that soft targets are wanted at; no matter where `keeps_logits`.

        Raises:
            CorruptObject: No encoder gives such values.
        """


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


def check_keeps_logits(codec: Codec, whose: str) -> None:
    """Refuse to give logits where only soft targets are kept.

    Raises:
        StoreError: The codec keeps no raw logits.
    """
    if not (codec.keeps_logits and codec.keeps_row_max):
        raise StoreError(
            f"raw logits asked of {whose}, whose codec {codec.name} does not keep them: it keeps what gives "
            "soft targets. Ask for a temperature, or label with dense16 or dense8"
        )
