"""Soft targets of a store: which teachers, how combined, at which temperature, all decided when read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.targets.compressed import CompressedTargets
from softcask.pipeline.targets.rules.registry import RULES
from softcask.storage_schemas.codecs.base import Codec, check_claim
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from softcask.pipeline.store.rows import Rows
    from softcask.pipeline.targets.rules.base import Rule
    from softcask.storage_schemas.manifest import CodecSpec, SegmentManifest


_BLOCK_VALUES = 1 << 15
"""Logits of a teacher that are combined at one time: what fits a cache is combined in half the time."""


class TeacherEntry(Protocol):
    """What must be known of a stored teacher to combine it with others."""

    @property
    def kind(self) -> str:
        """Kind of teacher; `derived` if it was made from others of the store."""

    @property
    def role(self) -> str:
        """`member`, `generalist` or `specialist`."""

    @property
    def num_classes(self) -> int:
        """Logits a row."""

    @property
    def absent_classes(self) -> Sequence[int]:
        """Those that are -inf in every row."""

    @property
    def codec(self) -> CodecSpec:
        """How its logits are kept."""

    def pinned(self) -> dict[str, Any]:
        """What its name is pinned to."""


class LogitSource(Protocol):
    """What soft targets are made from; `softcask.pipeline.store.reading.reader.Store` is one."""

    @property
    def uri(self) -> str:
        """Where it is, for messages."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of all C classes, in the order of the logits."""

    @property
    def rows(self) -> Rows:
        """Its readable rows: ids, hashes, labels."""

    @property
    def segments(self) -> Sequence[SegmentManifest]:
        """Its segments, in the order of `rows.segments`."""

    @property
    def teachers(self) -> Mapping[str, TeacherEntry]:
        """Stored teachers by name."""

    def missing_units(self, teacher: str) -> Sequence[tuple[str, int]]:
        """Units (segment, index) that are planned and not committed."""

    def logits(self, teacher: str, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Raw logits `[B, C]` of one teacher for these rows."""

    def logits_at(self, teacher: str, rows_B: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """Logits `[B, C]` of one teacher, shifted row by row, whose softmax at `temperature` is its own."""

    def codec(self, teacher: str) -> Codec:
        """The codec of one teacher, with the arrays that it keeps once."""

    def encoded(self, teachers: str | Sequence[str], rows_B: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Columns of M teachers as they are stored, `[M, B, *row_shape]` by name."""


class SoftTargets:
    """Several stored teachers read as one, at any temperature.

    Attributes:
        store: Where the logits are.
        teachers: Names of the teachers combined, in order.
        rule: Name of the rule that combines them.
        weights_M: Their weights: float32, positive, of sum 1.
        num_classes: C.
    """

    def __init__(
        self,
        store: LogitSource,
        teachers: Sequence[str] | None = None,
        rule: str = "mean",
        weights: Sequence[float] | None = None,
    ) -> None:
        """Choose what to combine; reads no logits.

        Args:
            store: An open store.
            teachers: Names; None takes all of role `member` but derived ones, by name.
            rule: Kind of rule, see `softcask.pipeline.targets.rules.registry.RULES`.
            weights: One a teacher, above 0, in the teachers' order, of any sum; None weighs them equally.

        Raises:
            ConfigError: A teacher that the store does not have, one named twice, or weights that do not fit.
            StoreError: No members, or a teacher over other classes than the store's.
            UnknownKind: No such rule.
        """
        self.store = store
        self.teachers: tuple[str, ...] = _chosen(store, teachers)
        self.rule = rule
        self.weights_M = normalised(weights, self.teachers)
        self.num_classes = len(store.class_names)
        self._combine: Rule = RULES.get(rule)

    def check_temperature(self, temperature: float) -> None:
        """Refuse a temperature that makes no sense or that a teacher's logits were not kept for.

        Raises:
            ConfigError: T is not finite or not above 0.
            StoreError: A teacher's codec makes no claim at T.
        """
        for name in self.teachers:
            codec = codec_from(self.store.teachers[name].codec)
            check_claim(codec, temperature, f"teacher {name!r} in {self.store.uri}")

    def check_logits(self) -> None:
        """Refuse teachers that have no number for some class, of whose logits nothing can be a mean.

        Raises:
            StoreError: A teacher has absent classes.
        """
        if lacking := [name for name in self.teachers if self.store.teachers[name].absent_classes]:
            raise StoreError(
                f"teacher {lacking[0]!r} of {self.store.uri} has absent classes, whose logits are -inf in "
                "every row and cannot be matched; learn from its probabilities (a loss of kind distillation)"
            )

    def probabilities(self, rows_B: NDArray[np.int64], temperature: float) -> NDArray[np.float32]:
        """Soft targets `[B, C]`, each row of sum 1.

        Args:
            rows_B: Row numbers of the store.
            temperature: T, see `check_temperature`.
        """
        self.check_temperature(temperature)
        members = [self.store.logits_at(name, rows_B, temperature) for name in self.teachers]
        combined_BC = np.empty((len(rows_B), self.num_classes), np.float32)
        step = max(1, _BLOCK_VALUES // self.num_classes)
        for first in range(0, len(rows_B), step):
            rows = slice(first, first + step)
            logits_MbC = np.stack([logits_BC[rows] for logits_BC in members])
            combined_BC[rows] = self._combine(logits_MbC, self.weights_M, temperature)
        return combined_BC

    def logits(self, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weighted mean `[B, C]` of raw logits, for logit matching (section 2.1 of the paper)."""
        mean_BC = np.zeros((len(rows_B), self.num_classes), np.float32)
        for name, weight in zip(self.teachers, self.weights_M, strict=True):
            mean_BC += weight * self.store.logits(name, rows_B)
        return mean_BC

    def check_compressed(self) -> None:
        """Refuse what cannot be given as it is stored.

        Raises:
            StoreError: Several teachers, or a codec whose rows have no fixed size.
        """
        name, uri = self.teachers[0], self.store.uri
        if len(self.teachers) > 1:
            raise StoreError(
                f"compressed targets are one teacher's; found {', '.join(self.teachers)} of {uri}. Name one "
                "in the targets' teachers, combine them into an entry of their own (`softcask combine`), or "
                "learn from their probabilities (a loss of kind distillation)"
            )
        codec, entry = self.store.codec(name), self.store.teachers[name]
        stored_classes = entry.num_classes - len(entry.absent_classes)
        if any(column.dtype.hasobject for column in codec.columns(stored_classes)):
            raise StoreError(
                f"teacher {name!r} of {uri} is kept row by row (codec {codec.name}, coder 'ans'), which only "
                "the host decodes; learn from its probabilities (a loss of kind distillation), or encode it "
                "anew with coder 'zstd' (`softcask reencode`)"
            )

    def columns(self, rows_B: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The one teacher's columns `[B, *row_shape]` as they are stored, by name; see `check_compressed`.

        Args:
            rows_B: Row numbers of the store.
        """
        return {name: values[0] for name, values in self.store.encoded(self.teachers[0], rows_B).items()}

    def compressed(self, columns: Mapping[str, Any]) -> CompressedTargets:
        """Columns of the one teacher, arrays or tensors, with what makes soft targets of them."""
        name = self.teachers[0]
        entry = self.store.teachers[name]
        return CompressedTargets(
            columns=columns,
            codec=self.store.codec(name),
            num_classes=entry.num_classes,
            absent_classes=tuple(entry.absent_classes),
        )

    def available(self) -> NDArray[np.bool_]:
        """Which of the store's rows `[N]` have logits of all these teachers: all, unless it is partial."""
        rows, segments = self.store.rows, self.store.segments
        available = np.ones(len(rows), dtype=bool)
        numbers = {segment.segment: number for number, segment in enumerate(segments)}
        for name in self.teachers:
            for segment, index in self.store.missing_units(name):
                number = numbers[segment]
                units = rows.positions // segments[number].unit_rows
                available &= (rows.segments != number) | (units != index)
        return available


def _chosen(store: LogitSource, names: Sequence[str] | None) -> tuple[str, ...]:
    known = ", ".join(store.teachers) or "none"
    chosen = members(store) if names is None else tuple(names)
    if not chosen:
        raise StoreError(
            f"{store.uri} has no teacher of role member; name teachers to use. Its teachers: {known}"
        )
    if unknown := [name for name in chosen if name not in store.teachers]:
        raise ConfigError(f"{store.uri} has no teacher {', '.join(unknown)}; its teachers: {known}")
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ConfigError(f"teacher named twice: {', '.join(twice)}; give it a larger weight instead")
    classes = len(store.class_names)
    if other := [
        f"{name} ({store.teachers[name].num_classes})"
        for name in chosen
        if store.teachers[name].num_classes != classes
    ]:
        raise StoreError(
            f"{store.uri} has {classes} classes, but these teachers have another number of logits: "
            f"{', '.join(other)}; leave them out of the targets' teachers"
        )
    return chosen


def members(store: LogitSource) -> tuple[str, ...]:
    """Names of the teachers that are combined where none are named: members, sorted.

    Entries derived from others are not among them: they would count what they were made from twice.
    """
    return tuple(
        sorted(
            name
            for name, teacher in store.teachers.items()
            if teacher.role == "member" and teacher.kind != "derived"
        )
    )


def normalised(weights: Sequence[float] | None, teachers: Sequence[str]) -> NDArray[np.float32]:
    """Weights of sum 1, one a teacher; equal ones where none are given.

    Raises:
        ConfigError: Another number of them than teachers, or one that is not finite and above 0.
    """
    given = [1.0] * len(teachers) if weights is None else list(weights)
    if len(given) != len(teachers):
        raise ConfigError(
            f"{len(given)} weights for {len(teachers)} teachers ({', '.join(teachers)}); give one each"
        )
    if bad := [weight for weight in given if not (math.isfinite(weight) and weight > 0)]:
        raise ConfigError(
            f"weights {bad} of {given}: each must be finite and above 0; leave a teacher out instead"
        )
    return (np.asarray(given, np.float64) / math.fsum(given)).astype(np.float32)
