"""The section `[store.codec]`: a codec by name, or a budget that one is to be found for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from softcask.pipeline.parts import Options
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import TEMPERATURES
from softcask.storage_schemas.codecs.registry import codec_named
from softcask.storage_schemas.codecs.topk import TopK
from softcask.storage_schemas.errors import ConfigError

AUTO = "auto"
DENSE_OR_TOPK = (Dense16.name, Dense8.name, TopK.name)
"""Codecs that are told from their settings alone."""
DENSE16_CLASSES, DENSE8_CLASSES = 256, 4096
"""Up to so many classes, whole rows are kept at 16 and at 8 bits; beyond, what loses least in `DEFAULT_BYTES`
a row."""
DEFAULT_BYTES = 256

_FEWEST_BYTES = 16
Temperature = Annotated[FiniteFloat, Field(ge=0.5, le=20)]


class CodecRequest(Options):
    """How logits are to be kept.

    Attributes:
        name: A codec, or `auto`: the one that fits the budget best. None: by the number of classes.
        max_bytes: Bytes a row on disk, at most; what is kept once a teacher is apart.
        max_kl: Mean KL(teacher || decoded) in nats, at most, at each of `temperatures`.
        temperatures: Those that students will use; the budget holds at them.
        k: Logits a row that `topk` keeps; None: as many as `max_bytes` has room for.
        coder: How `lowrank` codes its coefficients: `zstd`, or `ans` (needs the package constriction).
        rows: Rows that the teacher is tried on first, where that is needed.
    """

    name: str | None = None
    max_bytes: int | None = Field(default=None, ge=_FEWEST_BYTES)
    max_kl: FiniteFloat | None = Field(default=None, gt=0)
    temperatures: tuple[Temperature, ...] = Field(default=TEMPERATURES, min_length=1)
    k: int | None = Field(default=None, ge=1)
    coder: Literal["zstd", "ans"] = "zstd"
    rows: int = Field(default=6144, ge=64)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in (None, AUTO):
            codec_named(str(self.name))
        if self.name == AUTO and self.max_bytes is None and self.max_kl is None:
            raise ConfigError(
                'codec "auto" chooses by a budget: found neither max_bytes (bytes a row) nor max_kl (mean KL '
                "in nats). Give one of them, or name no codec to get the default for the number of classes"
            )
        if self.k is not None and self.name not in (TopK.name, AUTO):
            raise ConfigError(
                f"k = {self.k} is the number of logits that topk keeps; found codec "
                f'{self.name or "by default"}. Leave k out, or name the codec "topk"'
            )
        if self.coder != "zstd" and self.name in DENSE_OR_TOPK:
            raise ConfigError(
                f'coder = "{self.coder}" says how lowrank packs its coefficients; found codec {self.name}. '
                'Leave coder out, or name the codec "lowrank" or "auto"'
            )
        return self

    def resolved(self, num_classes: int) -> CodecRequest:
        """This request with a name: by the number of classes where it has none.

        Raises:
            ConfigError: `topk` is to keep more logits than there are.
        """
        if self.k is not None and self.k > num_classes:
            raise ConfigError(
                f"k = {self.k} logits a row of {num_classes} classes; expected 1 to {num_classes}"
            )
        if self.name is not None:
            return self
        if self.max_bytes is not None or self.max_kl is not None:
            return self.model_copy(update={"name": AUTO})
        if num_classes <= DENSE16_CLASSES:
            return self.model_copy(update={"name": "dense16"})
        if num_classes <= DENSE8_CLASSES:
            return self.model_copy(update={"name": "dense8"})
        return self.model_copy(update={"name": AUTO, "max_bytes": DEFAULT_BYTES})

    @property
    def needs_trial(self) -> bool:
        """Whether the codec can be told only from the teacher's logits; of a resolved request."""
        budget = self.max_bytes is not None or self.max_kl is not None
        return budget or self.name not in DENSE_OR_TOPK

    def facts(self) -> dict[str, Any]:
        """What a teacher's name is pinned to of it: all that was said, nothing of what is by default."""
        return self.model_dump(mode="json", exclude_defaults=True)
