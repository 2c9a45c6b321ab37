"""A codec for tests: all that a store must be able to keep, in the simplest form.

Parquet parts, an array kept once a teacher, a column of fixed rows and one of strings of bytes of any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.stores import MadeStore, pin_by_hand, teacher_manifest

from softcask.pipeline.store.codecs import publish_codec
from softcask.storage_schemas.codecs import registry
from softcask.storage_schemas.codecs.base import Arrays, Column, Columns, Container, Decoded
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import CodecSpec, TeacherManifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaled:
    """Logits below the maximum as whole steps; the maximum as text."""

    name: ClassVar[str] = "scaled"
    container: ClassVar[Container] = "parquet"
    keeps_logits: ClassVar[bool] = True
    keeps_row_max: ClassVar[bool] = True
    steps_C: NDArray[np.float32] | None = None

    @property
    def temperatures(self) -> tuple[float, float]:
        return 0.5, 20.0

    @classmethod
    def from_spec(cls, spec: CodecSpec, arrays: Arrays | None = None) -> Self:
        return cls(steps_C=arrays["steps"] if arrays else None)

    def to_spec(self) -> CodecSpec:
        return CodecSpec(name=self.name, container=self.container)

    def arrays(self) -> Arrays:
        return {"steps": self.steps()}

    def steps(self) -> NDArray[np.float32]:
        assert self.steps_C is not None
        return self.steps_C

    def columns(self, num_classes: int) -> tuple[Column, ...]:
        names = ("row", "class")
        codes = Column(
            name="codes", dtype=np.dtype("<i2"), row_shape=(num_classes,), dimension_names=names, split=True
        )
        return codes, Column(name="top", dtype=np.dtype(object), row_shape=(), dimension_names=("row",))

    def encode(self, logits_BC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        top_B = logits_BC.max(axis=1)
        codes_BC = np.rint((logits_BC - top_B[:, None]) / self.steps()).astype("<i2")
        texts_B = np.empty(len(top_B), dtype=object)
        texts_B[:] = [repr(float(top)).encode() for top in top_B]
        return {"codes": codes_BC, "top": texts_B}

    def decode(self, columns: Columns, temperature: float = 1.0) -> Decoded:
        if (columns["codes"] > 0).any():
            raise CorruptObject("a code above the maximum")
        tops = [float(text or b"nan") for text in columns["top"]]
        return Decoded(shifted_BC=columns["codes"] * self.steps(), row_max_B=np.array(tops, dtype=np.float32))


def add_scaled_teacher(made: MadeStore, name: str, monkeypatch: pytest.MonkeyPatch) -> TeacherManifest:
    """A teacher whose logits lie in Parquet; they are those of `made.logits`, to 1/200."""
    monkeypatch.setitem(registry.CODECS, Scaled.name, Scaled)
    spec = publish_codec(made.objects, name, Scaled(steps_C=np.full(made.classes, 0.01, dtype=np.float32)))
    teacher = teacher_manifest(name, classes=made.classes).model_copy(update={"codec": spec})
    made.teachers[name] = teacher
    pin_by_hand(made.objects, teacher, [segment for segment, _ in made.segments.values()])
    for segment, (manifest, _) in made.segments.items():
        generator = np.random.default_rng([*name.encode(), *segment.encode()])
        logits = generator.normal(0, 4, (manifest.rows, made.classes))
        made.logits[name, segment] = logits.astype(np.float32)
    return teacher
