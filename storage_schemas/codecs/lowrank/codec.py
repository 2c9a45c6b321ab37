"""`lowrank`: how a row differs from its teacher's mean row, along a basis that all rows share.

Most of the mass at T >= 2 lies outside the top hundred classes, and its shape is that of the network's output
layer, of low rank. A row is R coefficients on a uniform step, entropy-coded by their container, and a head of
K classes that are kept one by one: those where the profile alone would put most probability wrong. Decoded
rows are always normalised and positive, so that no KL is infinite.

Rows are projected in blocks of one size, so that BLAS adds in one order wherever a row stands: its bytes
depend on no other row. Another BLAS or device may round a coefficient that lies half-way the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.base import Arrays, Column, Columns, Container, Decoded
from softcask.storage_schemas.codecs.lowrank import ans
from softcask.storage_schemas.codecs.lowrank.basis import Basis
from softcask.storage_schemas.codecs.lowrank.head import Head, HeadFormat
from softcask.storage_schemas.codecs.lowrank.settings import Settings
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.manifest import CodecSpec
from softcask.storage_schemas.softmax import log_softmax, softmax

_BLOCK_BYTES, _BLOCK_ROWS = 8 << 20, 64
APART = np.float32(2.0**-22)
LOWEST = np.float32(-10_000)
"""Log-probabilities are cut here: as a probability it is 0 at any temperature, as a number small enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Rows as they are kept, for a loss that takes its sums without holding all classes of a row.

    Up to a constant a row, a logit is `mean + basis @ coefficients`, and in the head a residual more.

    Attributes:
        head: Classes of the head, and their residuals.
        coefficients_BR: float32, in nats.
    """

    head: Head
    coefficients_BR: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowrank:
    """R coefficients and a head of K classes a row.

    Attributes:
        settings: As the store has them.
        basis: What is kept once; None where only `columns` and `temperatures` are asked for.
    """

    name: ClassVar[str] = "lowrank"
    container: ClassVar[Container] = "parquet"
    keeps_logits: ClassVar[bool] = True
    keeps_row_max: ClassVar[bool] = False

    settings: Settings
    basis: Basis | None = None

    @property
    def temperatures(self) -> tuple[float, float]:
        """The least and the largest at which it was judged."""
        return min(self.settings.temperatures), max(self.settings.temperatures)

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        """The codec that `spec` describes; see `Codec.from_spec`.

        Raises:
            StoreError: The configuration or an array does not fit.
        """
        settings = Settings.from_configuration(spec.configuration)
        if spec.container != cls.container:
            raise StoreError(f"codec lowrank lies in Parquet; the store says {spec.container!r}")
        if arrays is None:
            return cls(settings=settings)
        basis = Basis.from_arrays(arrays, settings.num_classes, settings.rank)
        packed = 0 if settings.coder == "ans" else basis.digits.bytes
        if packed != settings.coefficient_bytes:
            raise StoreError(
                f"codec lowrank says that coefficients take {settings.coefficient_bytes} bytes; its limits "
                f"ask for {packed}"
            )
        return cls(settings=settings, basis=basis)

    def to_spec(self) -> CodecSpec:
        """Name, settings and container."""
        configuration = self.settings.model_dump(mode="json")
        return CodecSpec(name=self.name, configuration=configuration, container=self.container)

    def arrays(self) -> Arrays:
        """What `Basis` holds."""
        return self._known().arrays()

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        """`head` `[row, byte]`, and `coefficients` `[row, byte]` or, where they are ragged, `[row]`.

        Raises:
            StoreError: It was made for another number of classes.
        """
        settings = self.settings
        if num_classes != settings.num_classes:
            raise StoreError(
                f"codec lowrank was fitted to {settings.num_classes} classes; the teacher has {num_classes}. "
                "Fit it to this teacher"
            )
        head = bytes_column("head", self.head.bytes)
        if not settings.rank:
            return (head,)
        if settings.coder == "zstd":
            return head, bytes_column("coefficients", settings.coefficient_bytes)
        ragged = Column(name="coefficients", dtype=np.dtype(object), row_shape=(), dimension_names=("row",))
        return head, ragged

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Columns of finite float32 logits `[B, C]`, made in blocks of a few MB.

        Raises:
            StoreError: Another C than it was fitted to, or it was built without its arrays.
        """
        columns = self.columns(logits_BC.shape[1])
        blocks = [self._encode_block(block_BC) for block_BC in self._blocks(logits_BC)]
        return {
            column.name: np.concatenate([column.blank(0), *(block[column.name] for block in blocks)])
            for column in columns
        }

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        """Logits `[B, C]` that hold at any temperature; no row maxima.

        Raises:
            CorruptObject: No encoder gives such values.
            StoreError: It was built without its arrays.
        """
        sparse = self.sparse(columns)
        shifted_BC = self._known().profile(sparse.coefficients_BR)
        head_BK = np.take_along_axis(shifted_BC, sparse.head.classes_BK, axis=1) + sparse.head.residuals_BK
        np.put_along_axis(shifted_BC, sparse.head.classes_BK, head_BK, axis=1)
        _shift(shifted_BC, np.take_along_axis(sparse.head.classes_BK, sparse.head.top_B[:, None], axis=1))
        return Decoded(shifted_BC=shifted_BC, row_max_B=np.zeros(len(shifted_BC), dtype=np.float32))

    def sparse(self, columns: Columns) -> Sparse:
        """Rows `[B]` without their logits; raises as `decode` does."""
        basis, head = self._known(), self.head.decode(columns["head"])
        codes_BR = np.zeros((len(head.top_B), self.settings.rank), dtype=np.int64)
        if self.settings.rank and self.settings.coder == "zstd":
            codes_BR = basis.digits.unpack(columns["coefficients"])
        elif self.settings.rank:
            codes_BR = ans.decode(columns["coefficients"], basis.limit, self._code_deviations())
        return Sparse(head=head, coefficients_BR=basis.coefficients(codes_BR, self.settings.step))

    @property
    def head(self) -> HeadFormat:
        """How a head lies in bytes."""
        settings = self.settings
        return HeadFormat(classes=settings.num_classes, size=settings.head_size, code_bits=settings.head_bits)

    def _known(self) -> Basis:
        if self.basis is None:
            raise StoreError(
                "codec lowrank was built without its arrays, so it can say what it stores but not encode or "
                "decode; build it with those that lie in the teacher's codec folder"
            )
        return self.basis

    def _code_deviations(self) -> NDArray[np.float64]:
        return self._known().deviations_R.astype(np.float64) / self.settings.step

    def _blocks(self, logits_BC: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        rows = block_rows(logits_BC.shape[1])
        return (logits_BC[first : first + rows] for first in range(0, len(logits_BC), rows))

    def _encode_block(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        basis, settings, rows = self._known(), self.settings, len(logits_BC)
        top_B = logits_BC.argmax(axis=1)
        logits_BC = _log_probs(_padded(logits_BC))
        codes_BR = basis.codes(logits_BC, settings.step)
        profile_BC = basis.profile(basis.coefficients(codes_BR, settings.step))
        head = _head(logits_BC[:rows], profile_BC[:rows], top_B, settings)
        columns: dict[str, NDArray[Any]] = {"head": self.head.encode(head)}
        if settings.rank and settings.coder == "zstd":
            columns["coefficients"] = basis.digits.pack(codes_BR[:rows])
        elif settings.rank:
            columns["coefficients"] = ans.encode(codes_BR[:rows], basis.limit, self._code_deviations())
        return columns


def block_rows(num_classes: int) -> int:
    """Rows that are taken at once: a power of two, so that BLAS has no odd ones at the end."""
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * num_classes)))
    return 1 << (rows.bit_length() - 1)


def _log_probs(logits_BC: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a range beyond float32 is cut with all that no probability is left of
        shifted_BC = logits_BC - logits_BC.max(axis=1, keepdims=True)
    return log_softmax(np.maximum(shifted_BC, LOWEST, out=shifted_BC))


def _head(
    logits_BC: NDArray[np.float32],
    profile_BC: NDArray[np.float32],
    largest_B: NDArray[np.int64],
    settings: Settings,
) -> Head:
    """The classes where the profile puts most probability wrong, the largest always among them.

    The score of a class is `sum_T |softmax(z / T) - softmax(profile / T)|`.
    """
    scores_BC = np.zeros_like(logits_BC)
    for temperature in settings.temperatures:
        wrong_BC = softmax(logits_BC, temperature)
        wrong_BC -= softmax(profile_BC, temperature)
        scores_BC += np.abs(wrong_BC, out=wrong_BC)
    np.put_along_axis(scores_BC, largest_B[:, None], np.inf, axis=1)
    size = settings.head_size
    classes_BK = np.sort(np.argpartition(scores_BC, -size, axis=1)[:, -size:], axis=1)
    return Head(
        classes_BK=classes_BK,
        top_B=(classes_BK == largest_B[:, None]).argmax(axis=1),
        residuals_BK=_residuals(logits_BC, profile_BC, classes_BK),
    )


def _shift(logits_BC: NDArray[np.float32], top_B1: NDArray[np.int64]) -> None:
    """Move rows below 0, the one at the top at 0: a close second may have been rounded above it."""
    top_logits_B1 = np.take_along_axis(logits_BC, top_B1, axis=1)
    np.put_along_axis(logits_BC, top_B1, -np.inf, axis=1)
    others_B1 = logits_BC.max(axis=1, keepdims=True)
    least_B1 = others_B1 + np.maximum(np.abs(others_B1), 1) * APART
    logits_BC -= np.maximum(top_logits_B1, least_B1)
    np.put_along_axis(logits_BC, top_B1, 0, axis=1)


def _padded(logits_BC: NDArray[np.float32]) -> NDArray[np.float32]:
    """A whole block: the last bits of a product depend on the shape of its factors, and a row's must not."""
    missing = block_rows(logits_BC.shape[1]) - len(logits_BC)
    return np.pad(logits_BC, ((0, missing), (0, 0))) if missing else logits_BC


def _residuals(
    logits_BC: NDArray[np.float32], profile_BC: NDArray[np.float32], head_BK: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The head's logits above a profile that has the teacher's mass outside the head."""
    head = np.take_along_axis(logits_BC, head_BK, axis=1) - np.take_along_axis(profile_BC, head_BK, axis=1)
    residuals: NDArray[np.float32] = head - (_tail(logits_BC, head_BK) - _tail(profile_BC, head_BK))[:, None]
    return residuals


def _tail(logits_BC: NDArray[np.float32], head_BK: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logsumexp `[B]` of the classes outside the head."""
    tail_BC = logits_BC.copy()
    np.put_along_axis(tail_BC, head_BK, -np.inf, axis=1)
    most_B1 = tail_BC.max(axis=1, keepdims=True)
    tail_BC -= most_B1
    np.exp(tail_BC, out=tail_BC)
    logs: NDArray[np.float32] = np.log(tail_BC.sum(axis=1)) + most_B1[:, 0]
    return logs


def bytes_column(name: str, size: int) -> Column:
    """Rows of so many bytes, compressed byte by byte."""
    return Column(
        name=name, dtype=np.dtype(np.uint8), row_shape=(size,), dimension_names=("row", "byte"), split=True
    )
